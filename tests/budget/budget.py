"""Counts instructions and allocations with callgrind, one part at a time.

Callgrind counts only while a thread is in the part's function, or in what that calls.
Pushes are sent one after the other, so that each is a batch of its own.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = os.environ["NORTHBRIDGE"]
BUDGETS = pathlib.Path(__file__).with_name("budgets.json")
MOST_GROWTH = 0.10
# Once in a while a table grows.
SLACK = {"instructions": 0, "allocations": 0.4}
PUSHES = 300
PATIENCE_S = 300

# The function of each part, as a pattern of callgrind, and the command that it is counted
# in. The streams run in `dev`, whose broker needs no topics to be created.
PARTS = {
    "reader": ("northbridge::notification::read", "ingress"),
    "handler": ("northbridge::ingress::handler::Handler::answer::*", "ingress"),
    "delivery": ("*producer::Context*ProducerContext*::delivery", "ingress"),
    "event": ("*CommandStatus*stream::Stream*::apply", "dev"),
}
ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"}


def main():
    options = argparse.ArgumentParser(prog="tests/budget/run")
    options.add_argument("--update", action="store_true", help="write what was counted as the new budgets")
    options = options.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as directory, running("dev", directory) as dev:
        broker = dev.wait_for(r"broker +([0-9.]+:[0-9]+)")
        for part, (function, command) in PARTS.items():
            measured[part] = measure(pathlib.Path(directory), part, function, command, broker)
    if options.update:
        BUDGETS.write_text(json.dumps(measured, indent=2) + "\n")
        return 0
    return compare(json.loads(BUDGETS.read_text()), measured)


def measure(directory, part, function, command, broker):
    """What one push costs in a part: instructions and allocations."""
    counted = directory / f"{part}.callgrind"
    callgrind = [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={counted}",
        "--collect-atstart=no", f"--toggle-collect={function}",
        "--dump-line=no", "--dump-instr=yes", "--compress-strings=no", "--compress-pos=no",
    ]
    with running(command, directory, callgrind, broker) as process:
        if command == "dev":
            address = process.wait_for(r"pushes +http://(\S+)/notifications")
        else:
            address = process.wait_for(r'"listening","address":"([^"]+)"')
        admin = process.admin()
        wait_until_ready(admin)
        push(address)
        if command == "dev":
            wait_for_events(admin)
    instructions, allocations = read(counted)
    if instructions == 0:
        sys.exit(f"{part}: nothing was counted in {function}, which may have been inlined")
    return {
        "instructions": round(instructions / PUSHES),
        "allocations": round(allocations / PUSHES, 1),
    }


class Process:
    def __init__(self, arguments, log):
        self.log = log
        output = log.open("wb")
        self.process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)

    def wait_for(self, pattern):
        def found():
            return re.search(pattern, self.log.read_text(errors="replace"))
        return wait(found, f"{pattern} in the output", self).group(1)

    def admin(self):
        return self.wait_for(
            r'(?:"admin server listening","address":"|status page +http://)([0-9.:]+)'
        )


@contextlib.contextmanager
def running(command, directory, wrapper=(), broker=None):
    """Runs a command until the end of the block, and lets it end in order."""
    settings = ["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "log.format=json"]
    if command == "ingress":
        settings.append(f"kafka.bootstrap_servers={broker}")
    arguments = [*wrapper, PROGRAM, command]
    for setting in settings:
        arguments += ["--set", setting]
    log = tempfile.NamedTemporaryFile(dir=directory, delete=False).name
    process = Process(arguments, pathlib.Path(log))
    try:
        yield process
        process.process.send_signal(signal.SIGTERM)
        process.process.wait(PATIENCE_S)
    except BaseException:
        print(process.log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.process.kill()


def wait(condition, what, process=None):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if result := condition():
            return result
        if process and process.process.poll() is not None:
            raise RuntimeError(f"it ended before {what}")
        time.sleep(0.1)
    raise RuntimeError(f"waited in vain for {what}")


def get(address, path):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return None, ""
    finally:
        connection.close()


def wait_until_ready(admin):
    wait(lambda: get(admin, "/readyz")[0] == 200, "readiness")


def wait_for_events(admin):
    applied = re.compile(r'^northbridge_stream_records_total\{result="applied",stream="command-status"\} (\d+)', re.M)

    def all_applied():
        found = applied.search(get(admin, "/metrics")[1])
        return found and int(found.group(1)) >= PUSHES
    wait(all_applied, "the events of all pushes")


def push(address):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    for number in range(PUSHES):
        header = {
            "requestId": f"request-{number:05}", "from": f"/devices/device-{number:05}/services/Switch",
            "to": "application", "status": "delivered", "timestamp": "20260101T000000Z",
        }
        body = {"notifyType": "messageConfirm", "header": header, "body": {}}
        connection.request("POST", "/notifications", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            sys.exit(f"push {number} was answered {response.status}")
    connection.close()


def read(counted):
    """Instructions, and calls of an allocator, in what callgrind has written.

    Callgrind counts calls outside the part, too, but instructions only in it: the first
    instruction of a function says how often it was called there.
    """
    instructions, executed, of_callee = 0, {}, False
    for line in counted.read_text().splitlines():
        if line.startswith("totals:"):
            instructions = int(line.split()[1])
        elif line.startswith("fn="):
            name = line[3:]
        elif line.startswith("calls="):
            of_callee = True
        elif line.startswith("0x"):
            address, count = line.split()
            if name in ALLOCATORS and not of_callee:
                of_function = executed.setdefault(name, {})
                address = int(address, 16)
                of_function[address] = of_function.get(address, 0) + int(count)
            of_callee = False
    return instructions, sum(counts[min(counts)] for counts in executed.values())


def compare(budgets, measured):
    failed = False
    print(f"{'a push':10} {'instructions':>20} {'allocations':>20}   counted (budget)")
    for part, counts in measured.items():
        cells = []
        for kind, count in counts.items():
            budget = budgets[part][kind]
            grown = count > budget * (1 + MOST_GROWTH) + SLACK[kind]
            failed |= grown
            cells.append(f"{count} ({budget}){'!' if grown else ' '}")
        print(f"{part:10} {cells[0]:>20} {cells[1]:>20}")
    if failed:
        print(
            "What is marked has grown by more than a tenth. Make it cheaper, or change its budget\n"
            "in the same commit, which says why: tests/budget/run --update",
            file=sys.stderr,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
