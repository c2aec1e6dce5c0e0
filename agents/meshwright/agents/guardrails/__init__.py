"""Guardrails: an ordered list of small rules that look at what goes into an agent and what comes out of it."""

from meshwright.agents.guardrails.content import ContentPolicy
from meshwright.agents.guardrails.effects import Effects
from meshwright.agents.guardrails.guardrail import Guardrail, Subject, Verdict
from meshwright.agents.guardrails.injection import Injection
from meshwright.agents.guardrails.judge import Judge, content_judge, injection_judge, tone_judge
from meshwright.agents.guardrails.leakage import Leakage
from meshwright.agents.guardrails.output import Length, OutputSchema, Patterns
from meshwright.agents.guardrails.pii import Pii
from meshwright.agents.guardrails.policy import DEFAULT
from meshwright.agents.guardrails.secrets import Secrets
from meshwright.agents.guardrails.size import Size

__all__ = [
    "DEFAULT",
    "ContentPolicy",
    "Effects",
    "Guardrail",
    "Injection",
    "Judge",
    "Leakage",
    "Length",
    "OutputSchema",
    "Patterns",
    "Pii",
    "Secrets",
    "Size",
    "Subject",
    "Verdict",
    "content_judge",
    "injection_judge",
    "tone_judge",
]
