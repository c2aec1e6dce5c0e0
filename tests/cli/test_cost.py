"""The table of costs: what is in it."""

from meshwright.cli.cost import paid
from meshwright.gen.agents.v1.task_service_pb2 import CostRow, GetCostsResponse


def test_what_cost_nothing_is_in_no_row():
    free, dear = CostRow(name="offline", tokens=90), CostRow(name="best", cost_micros=1, tokens=2)
    assert list(paid(GetCostsResponse(rows=[dear, free])).rows) == [dear]
