"""Alerts and dashboards of a mesh: tables in Python, rendered into the files beside them."""
