"""Renders alerts and dashboards into the files beside this one: `python -m k8s.components.monitoring`."""

from pathlib import Path

from k8s.components.monitoring.render import files

for name, text in files().items():
    (Path(__file__).parent / name).write_text(text)
