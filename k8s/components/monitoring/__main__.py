"""Renders alerts and dashboards, here and for the command line: `python -m k8s.components.monitoring`."""

from pathlib import Path

from k8s.components.monitoring.render import files, outlines

for name, text in files().items():
    (Path(__file__).parent / name).write_text(text)

OUTLINES = Path(__file__).parents[3] / "cli/meshwright/cli/readiness/alerts.json"
OUTLINES.write_text(outlines())
