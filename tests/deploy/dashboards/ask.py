"""Runs every query of every dashboard on a Prometheus; one without data is a failure.

    python3 ask.py PROMETHEUS_URL SECONDS DASHBOARD.json...

SECONDS is the duration of the run, which is the time range of the queries. The
environment variable RATE_INTERVAL is the value of Grafana's $__rate_interval, at
least four scrape intervals. WITHOUT lists metrics that the run does not have, such
as that of the certificate without TLS.
"""

import json
import math
import os
import re
import sys
import time
import urllib.parse
import urllib.request

from board import boards, filled_in, queries

RATE_INTERVAL = os.environ.get("RATE_INTERVAL", "10s")
WITHOUT = os.environ.get("WITHOUT", "").split()
STEP_SECONDS = 2
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)$")


class Prometheus:
    """A Prometheus that scraped a run, and the run's time range."""

    def __init__(self, url, seconds):
        self.url = url
        self.end = time.time()
        self.seconds = seconds

    def get(self, path, **parameters):
        """The data of a response of the HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def series(self, query):
        """The series of a query: labels and finite points."""
        expr = filled_in(query.expr, RATE_INTERVAL, f"{self.seconds}s")
        if query.instant:
            result = self.get("query", query=expr, time=self.end)["result"]
            found = [(row["metric"], [row["value"]]) for row in result]
        else:
            start = self.end - self.seconds
            result = self.get("query_range", query=expr, start=start, end=self.end, step=STEP_SECONDS)
            found = [(row["metric"], row["values"]) for row in result["result"]]
        numbers = [
            (labels, [(at, float(value)) for at, value in points if math.isfinite(float(value))])
            for labels, points in found
        ]
        return [(labels, points) for labels, points in numbers if points]


def query_findings(prometheus, query):
    """Findings about a query."""
    series = prometheus.series(query)
    if not series and not any(metric in query.expr for metric in WITHOUT):
        yield f"no data: {query.expr}"
    for label in PLACEHOLDER.findall(query.legend):
        if any(label not in labels for labels, _ in series):
            yield f"the legend uses {label}, which is not a label of: {query.expr}"


def variable_findings(prometheus, variable):
    """Findings about a variable."""
    selector, label = LABEL_VALUES.match(variable["query"]["query"]).groups()
    selector = filled_in(selector, RATE_INTERVAL, f"{prometheus.seconds}s")
    if not prometheus.get(f"label/{label}/values", **{"match[]": selector}):
        yield f"no values: {variable['query']['query']}"


def main():
    prometheus = Prometheus(sys.argv[1], int(sys.argv[2]))
    found = 0
    for board in boards():
        asked = [(panel["title"], query) for panel in board.panels for query in queries(panel)]
        findings = [
            (title, finding)
            for title, query in asked
            for finding in query_findings(prometheus, query)
        ]
        for variable in board.variables:
            findings += [(variable["name"], it) for it in variable_findings(prometheus, variable)]
        for title, finding in findings:
            print(f"{board.path.name}: {title}: {finding}")
        found += len(findings)
        print(f"{board.path.name}: {len(asked)} queries, {len(findings)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
