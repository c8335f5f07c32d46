"""Holds dashboards to the rules of Grafana's linter for Prometheus dashboards, and a few more.

    python3 lint.py METRICS.md DASHBOARD.json...

The rules are named as there: template-datasource, template-job and so on. The
units are those that these dashboards use.
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
    """What is wrong with the whole."""
    text = board.json
    variables = {variable["name"]: variable for variable in text["templating"]["list"]}
    if text["editable"]:
        yield "uneditable-dashboard: a file is the only place to change it"
    if variables.get("datasource", {}).get("type") != "datasource":
        yield "template-datasource: a variable `datasource` chooses the data source"
    for name, label in (("job", "Job"), ("instance", "Instance")):
        yield from variable_findings(name, label, variables.get(name))
    ids = [panel["id"] for panel in text["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have the same id"
    titles = [panel["title"] for panel in board.panels]
    yield from (f"two panels are called {title}" for title in titles if titles.count(title) > 1)
    yield from layout_findings(text["panels"])


def variable_findings(name, label, variable):
    """What is wrong with a variable that chooses the value of a label."""
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
            yield f"template-{name}: `{key}` of the variable has to be {value!r}"


def layout_findings(panels):
    """Panels that overlap, or stick out."""
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] + place["w"] > WIDTH:
            yield f"{panel['title']}: sticks out on the right"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    yield f"{panel['title']}: lies over {other}"
                    return


def panel_findings(panel, types):
    """What is wrong with one panel."""
    if not panel["title"] or not panel.get("description"):
        yield "panel-title-description: it has to say what it shows"
    if panel.get("datasource") != DATA_SOURCE:
        yield "panel-datasource: it has to use the variable"
    if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
        yield "panel-units: it needs a unit"
    if not panel["targets"]:
        yield "panel-no-targets: it asks nothing"
    for query in queries(panel):
        yield from query_findings(query.expr, types)


def query_findings(expr, types):
    """What is wrong with one query."""
    for name, matchers in METRIC.findall(expr):
        if 'job=~"$job"' not in matchers:
            yield f"target-job: {name} is asked of any job"
        if 'instance=~"$instance"' not in matchers:
            yield f"target-instance: {name} is asked of any instance"
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        kind = types.get(name) or types.get(base)
        if kind is None:
            yield f"{name} is no metric of northbridge"
        rated = re.search(r"\b(rate|irate|increase)\(" + name + r"\b", expr)
        # The books compare the counters themselves.
        if kind in ("counter", "histogram") and not rated and "in_flight" not in expr:
            yield f"target-counter-agg: {name} counts, so its rate or increase is asked"
    for _, window in RATE.findall(expr):
        if window not in ("$__rate_interval", "$__range"):
            yield f"target-rate-interval: [{window}] has to be [$__rate_interval]"


def metric_types(page):
    """The metrics of the page, each with its type."""
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
