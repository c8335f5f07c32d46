"""Reads dashboards: their panels and queries, and how Grafana expands variables.

It must know neither Prometheus nor how a panel is drawn.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Query:
    """One query of a panel, with its variables unexpanded."""

    expr: str
    legend: str
    instant: bool


class Board:
    """One dashboard."""

    def __init__(self, path):
        self.path = Path(path)
        self.json = json.loads(self.path.read_text())

    @property
    def panels(self):
        """All panels except rows, which are headings."""
        return [panel for panel in self.json["panels"] if panel["type"] != "row"]

    @property
    def variables(self):
        """The variables whose values come from Prometheus."""
        return [v for v in self.json["templating"]["list"] if v["type"] == "query"]


def boards():
    """The dashboards named on the command line."""
    return [Board(path) for path in sys.argv[1:] if path.endswith(".json")]


def queries(panel):
    """The queries of a panel."""
    return [
        Query(target["expr"], target["legendFormat"], target.get("instant", False))
        for target in panel["targets"]
    ]


def filled_in(expr, rate_interval, shown):
    """The query as Grafana sends it if `All` is selected in every variable."""
    values = {"$__rate_interval": rate_interval, "$__range": shown, "$job": ".+", "$instance": ".+"}
    for name, value in values.items():
        expr = expr.replace(name, value)
    return expr
