"""Agents of the rehearsal: those of chaos, which leave evidence of every effect; one tool has a host of its own."""

from meshwright.agents import Agent
from meshwright.cli.chaos.agents import MODEL, OWN

helper = Agent("helper", "Do the job that another agent hands over.", tools=OWN, model=MODEL)
trader = Agent("trader", "Do the job, with a neighbour.", tools=(*OWN, "post@^1"), delegates=("helper",), model=MODEL)
