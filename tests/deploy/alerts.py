"""Checks the alerts: their definitions, and their state on a running Prometheus.

    python3 alerts.py written RULES.yml ALERTS.yml METRICS.md OPERATIONS.md TEST.yml...
    python3 alerts.py quiet PROMETHEUS_URL [ALERT...]
    python3 alerts.py firing PROMETHEUS_URL ALERT

`written`: the rules use existing metrics; each alert has a severity, a runbook
section, a test case in which it fires and one in which it does not; each runbook
belongs to an alert.
`quiet`: no alert's expression is true at the moment, for however short a time,
except those of the named alerts, which the run provokes.
`firing`: waits until the alert fires.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

SEVERITIES = {"critical", "warning"}
RUNBOOKS = "docs/operations.md"
# A placeholder for where the reader has docs/.
RUNBOOK_BASE = "https://northbridge.example"
TIMEOUT_SECONDS = 60
# The name of a recorded series has a colon before `northbridge_`; it is not a metric.
METRIC = re.compile(r"(?<!:)\b(?:northbridge|process)_\w+")


def loaded(path):
    """The content of a YAML file."""
    # Imported here because the other commands need only the standard library.
    import yaml

    return yaml.safe_load(Path(path).read_text())


def rules_of(path):
    """The rules of all groups in a file."""
    return [rule for group in loaded(path)["groups"] for rule in group["rules"]]


def unknown_metrics(rules, metrics_page):
    """Metrics in rules that the program does not expose."""
    known = set(re.findall(r"^\| `(\w+)` \|", metrics_page, re.M))
    for rule in rules:
        for name in METRIC.findall(rule["expr"]):
            if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known:
                yield f"{name} is not a metric: {rule['expr']}"


def written(recording_file, alerts_file, metrics_file, page_file, *test_files):
    """Findings in the files."""
    page = Path(page_file).read_text()
    alerts = {rule["alert"]: rule for rule in rules_of(alerts_file)}
    rules = [*rules_of(recording_file), *alerts.values()]
    yield from unknown_metrics(rules, Path(metrics_file).read_text())
    yield from unknown_sections(page)
    headings = re.findall(r"^### (Northbridge\w+)$", page, re.M)
    for name, rule in alerts.items():
        if rule["labels"]["severity"] not in SEVERITIES:
            yield f"{name}: the severity must be one of {SEVERITIES}"
        if rule["annotations"]["runbook_url"] != f"{RUNBOOK_BASE}/{RUNBOOKS}#{name.lower()}":
            yield f"{name}: runbook_url does not link to its own runbook"
        if name not in headings:
            yield f"{name}: there is no section in {RUNBOOKS}"
    yield from (f"{name}: a runbook without an alert" for name in headings if name not in alerts)
    cases = [
        case
        for file in test_files
        for test in loaded(file)["tests"]
        for case in test["alert_rule_test"]
    ]
    for fires, says in ((True, "fires"), (False, "does not fire")):
        tested = {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires}
        yield from (f"{name}: there is no case in which it {says}" for name in alerts if name not in tested)
    print(f"{len(alerts)} alerts, {len(headings)} runbooks, {len(cases)} cases")


def unknown_sections(page):
    """Links to sections that do not exist on the page."""
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", page, re.M)}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    yield from (f"there is no section #{link}" for link in links if link not in anchors)


def anchor(heading):
    """The anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def get(url, path, **parameters):
    """The data of a response of Prometheus's HTTP API."""
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=30) as answer:
        return json.load(answer)["data"]


def quiet(url, *provoked):
    """Alerts whose expression is true at the moment."""
    groups = get(url, "rules", type="alert")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    names = {rule["name"] for rule in rules}
    yield from (f"there is no alert named {name}" for name in provoked if name not in names)
    rules = [rule for rule in rules if rule["name"] not in provoked]
    for rule in rules:
        for series in get(url, "query", query=rule["query"])["result"]:
            yield f"{rule['name']} is active: {series['metric']} {series['value'][1]}"
    print(f"{len(rules)} alerts checked on a quiet system")


def firing(url, name):
    """A finding if the alert does not fire in time."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until:
        alerts = get(url, "alerts")["alerts"]
        if any(it["labels"]["alertname"] == name and it["state"] == "firing" for it in alerts):
            print(f"{name} fires")
            return
        time.sleep(1)
    yield f"timed out waiting for {name} to fire"


def main():
    command, *arguments = sys.argv[1:]
    checks = {
        "written": written,
        "quiet": quiet,
        "firing": firing,
    }
    findings = list(checks[command](*arguments))
    print("\n".join(findings), end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
