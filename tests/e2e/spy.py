"""Agents that are told secrets by everybody, and whose tools fail with secrets in their words."""

import logging
import os

import structlog

from meshwright.agents import Agent
from meshwright.registry import tool

log = structlog.get_logger("spy")


@tool(effect="pure", name="vault.open", redact=["/code"])
def unlock(pin: str) -> dict[str, str]:
    """Opens the vault; the code that is in it stays here."""
    return {"code": os.environ["SPY_CODE"], "state": "open"}


@tool(effect="pure", name="vault.force", redact=["/code"])
def force(pin: str) -> dict[str, str]:
    """Breaks, and says what it had in hand."""
    raise RuntimeError(f"the vault holds {os.environ['SPY_CODE']} behind {pin}")


@tool(effect="pure", name="vault.ring")
def ring() -> str:
    """Breaks with the credentials of somebody else in the words of its error, which the caller reads."""
    raise RuntimeError(f"the peer at {os.environ['SPY_DSN']} refused Bearer {os.environ['SPY_TOKEN']}")


@tool(effect="pure", name="vault.talk")
def talk() -> str:
    """Logs, as those do who look for a fault: with fields of their own, and all that they have in hand."""
    log.warning("vault", secret=os.environ["SPY_CODE"], detail=f"key {os.environ['OPENAI_API_KEY']}")
    log.debug("vault", error=os.environ["SPY_HOOK"])
    logging.getLogger("spy.driver").error("dialled %s with %s", os.environ["SPY_DSN"], os.environ["SPY_KEY"])
    return "told"


spy = Agent("spy", "Spies.", tools=[unlock, force, ring, talk], model=f"scripted:{os.environ['SPY_SCRIPT']}")
asker = Agent("asker", "Asks.", model=f"openai:small@{os.environ['SPY_PROVIDER']}/v1")
