"""Whether somebody is told when the mesh is in trouble: a Prometheus that sees its processes and holds its alerts."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from meshwright.cli.readiness.outcome import Outcome, counted, few, good, missing, plain, unseen
from meshwright.cli.readiness.peer import Peer
from meshwright.cli.readiness.survey import Survey
from meshwright.core.errors import UnavailableError

NAMED = "meshwright"
"""Jobs of the mesh have this in their name, as the component of Kustomize calls them."""
NO_PROMETHEUS = unseen("no Prometheus was named", "--prometheus URL names the one of the mesh")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
RENDERED = "alerts.json"
"""The alerts of this version; `make monitoring` writes the file."""


async def targets(survey: Survey) -> Outcome:
    """Whether every process of the mesh that should tell its metrics does."""
    if survey.prometheus is None:
        return NO_PROMETHEUS
    data = await asked(survey.prometheus, "/api/v1/targets?state=active")
    ours = [one for one in records(data, "activeTargets") if NAMED in text(one, "scrapePool")]
    down = [f"{text(one, 'scrapeUrl')}: {text(one, 'lastError')}" for one in ours if one.get("health") != "up"]
    if down or not ours:
        told = few(down, 2) or f"no job has {NAMED} in its name"
        return missing(told, "set MESHWRIGHT_METRICS_PORT for every process, and scrape it (docs/monitoring.md)")
    return good(f"{counted(len(ours), 'target')} up")


async def rules(survey: Survey) -> Outcome:
    """Whether the alerts of this version are loaded as they are."""
    if survey.prometheus is None:
        return NO_PROMETHEUS
    data = await asked(survey.prometheus, "/api/v1/rules?type=alert")
    loaded = {
        text(rule, "name"): outline(rule) for group in records(data, "groups") for rule in records(group, "rules")
    }
    rendered: dict[str, list[str]] = json.loads((files("meshwright.cli.readiness") / RENDERED).read_text())
    own = {name: (squeezed(expression), span(lasts)) for name, (expression, lasts) in rendered.items()}
    absent = [name for name in own if name not in loaded]
    other = [f"{name} is another" for name, rule in own.items() if name in loaded and loaded[name] != rule]
    if absent or other:
        told = (f"not loaded: {few(absent)} " if absent else "") + few(other)
        return missing(told.strip(), "load this version's prometheus-rules.yaml (docs/monitoring.md)")
    return good(f"{len(own)} alerts are loaded, each as in this version")


async def silence(survey: Survey) -> Outcome:
    """Whether an alert of the mesh fires."""
    if survey.prometheus is None:
        return NO_PROMETHEUS
    data = await asked(survey.prometheus, "/api/v1/alerts")
    named = (one for one in records(data, "alerts") if one.get("state") == "firing")
    labels = (one.get("labels") for one in named)
    names = sorted({text(one, "alertname") for one in labels if isinstance(one, dict)})
    if firing := [name for name in names if name.lower().startswith(NAMED)]:
        return missing(f"firing: {few(firing)}", "see its runbook (docs/monitoring.md)")
    return good("none fires")


def outline(rule: dict[str, Any]) -> tuple[str, Any]:
    """Returns what counts of a rule as Prometheus tells it: its expression, and how many seconds it has to be so."""
    return squeezed(text(rule, "query", cut=False)), rule.get("duration")


def span(lasts: str) -> int:
    """Reads a duration of ours, `5m`, in seconds."""
    return int(lasts[:-1]) * SECONDS[lasts[-1]]


def squeezed(expression: str) -> str:
    """Spells an expression so that ours and Prometheus's own spelling of it are the same."""
    return "".join(expression.split()).replace("e+0", "e")


async def asked(prometheus: Peer, path: str) -> dict[str, Any]:
    """Asks a Prometheus; returns the data of its answer.

    Raises:
        MeshError: It does not answer, or with something else.
    """
    answer = await prometheus.ask("GET", path)
    try:
        found = json.loads(answer.body)
        data = found["data"]
    except (ValueError, RecursionError, KeyError, TypeError):
        data = None
    if not isinstance(data, dict):
        raise UnavailableError(
            f"the Prometheus answers {answer.status} with what is no data of {path.partition('?')[0]}"
        )
    return data


def records(data: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a list in what others wrote."""
    found = data.get(name)
    yield from (one for one in (found if isinstance(found, list) else []) if isinstance(one, dict))


def text(data: dict[str, Any], name: str, *, cut: bool = True) -> str:
    """Returns a text in what others wrote; empty where it is none."""
    found = data.get(name)
    if not isinstance(found, str):
        return ""
    return plain(found) if cut else found
