"""Checks dashboards against the rules of Grafana's dashboard-linter, and a few more.

    python3 lint.py METRICS.md DASHBOARD.json...

The rules have the linter's names: template-datasource, template-job and so on.
"""

import re
import sys
from pathlib import Path

from board import boards, queries

UNITS = {"bytes", "cps", "none", "percentunit", "reqps", "s", "short"}
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
METRIC = re.compile(r"\b(northbridge_\w+|process_\w+)(\{[^}]*\})?")
RATE = re.compile(r"\b(rate|irate|increase|delta)\(.*?\[([^\]]+)\]", re.S)
WIDTH = 24


def dashboard_findings(board):
    """Findings about the dashboard as a whole."""
    text = board.json
    variables = {variable["name"]: variable for variable in text["templating"]["list"]}
    if text["editable"]:
        yield "uneditable-dashboard: `editable` must be false, because changes belong in the file"
    if variables.get("datasource", {}).get("type") != "datasource":
        yield "template-datasource: a variable `datasource` must select the data source"
    for name, label in (("job", "Job"), ("instance", "Instance")):
        yield from variable_findings(name, label, variables.get(name))
    ids = [panel["id"] for panel in text["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have the same id"
    titles = [panel["title"] for panel in board.panels]
    yield from (f"two panels are called {title}" for title in titles if titles.count(title) > 1)
    yield from layout_findings(text["panels"])


def variable_findings(name, label, variable):
    """Findings about a variable that selects values of a label."""
    wanted = {
        "type": "query",
        "label": label,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "refresh": 2,
        "datasource": DATA_SOURCE,
    }
    for key, value in wanted.items():
        if (variable or {}).get(key) != value:
            yield f"template-{name}: `{key}` of the variable must be {value!r}"


def layout_findings(panels):
    """Panels that overlap or exceed the grid."""
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] + place["w"] > WIDTH:
            yield f"{panel['title']}: exceeds the grid on the right"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"{panel['title']}: overlaps {other}"
                    return


def panel_findings(panel, types):
    """Findings about one panel."""
    if not panel["title"] or not panel.get("description"):
        yield "panel-title-description: it must have a title and a description"
    if panel.get("datasource") != DATA_SOURCE:
        yield "panel-datasource: it must use the variable"
    if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
        yield f"panel-units: its unit must be one of {sorted(UNITS)}"
    if not panel["targets"]:
        yield "panel-no-targets: it has no queries"
    for query in queries(panel):
        yield from query_findings(query.expr, types)


def query_findings(expr, types):
    """Findings about one query."""
    for name, matchers in METRIC.findall(expr):
        if 'job=~"$job"' not in matchers:
            yield f"target-job: {name} is not filtered by job"
        if 'instance=~"$instance"' not in matchers:
            yield f"target-instance: {name} is not filtered by instance"
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        kind = types.get(name) or types.get(base)
        if kind is None:
            yield f"{name} is not a metric of northbridge"
        rated = re.search(r"\b(rate|irate|increase)\(" + name + r"\b", expr)
        # received = outcomes + in flight compares the counters themselves.
        if kind in ("counter", "histogram") and not rated and "in_flight" not in expr:
            yield f"target-counter-agg: {name} is a counter, so it needs rate or increase"
    for _, window in RATE.findall(expr):
        if window not in ("$__rate_interval", "$__range"):
            yield f"target-rate-interval: [{window}] must be [$__rate_interval]"


def metric_types(page):
    """The metrics on the page by name, with their types."""
    return dict(re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", page, re.M))


def main():
    types = metric_types(Path(sys.argv[1]).read_text())
    found = 0
    for board in boards():
        findings = [("", finding) for finding in dashboard_findings(board)]
        for panel in board.panels:
            findings += [(f"{panel['title']}: ", it) for it in panel_findings(panel, types)]
        for place, finding in findings:
            print(f"{board.path.name}: {place}{finding}")
        found += len(findings)
        print(f"{board.path.name}: {len(board.panels)} panels, {len(findings)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
