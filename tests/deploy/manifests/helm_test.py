"""Runs what the chart's test pod runs against `northbridge dev`, and lets the program
check the settings that the chart renders. HELM and NORTHBRIDGE name the programs; the
working directory is the repository.
"""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from objects import read
from rendering import TEST, Release

NORTHBRIDGE = os.environ["NORTHBRIDGE"]
SECRETS = {"auth.token": "a-token", "auth.basic.username": "platform", "auth.basic.password": "a-password"}
VALUES = Path("tests/deploy/manifests/values")


class Pod:
    """The test of a release, with files and variables as Kubernetes would provide them."""

    def __init__(self, directory, config, *secrets):
        self.directory, self.paths = directory, config.get("http", {}).get("paths", [])
        self.secrets = {name: SECRETS[name] for name in secrets}
        values = {"secrets": {name: {"value": value} for name, value in self.secrets.items()}}
        release = Release({"config": config, **values})
        self.arguments = release.spec(TEST)["containers"][0]["args"]
        self.settings = Path(directory, "northbridge.yaml")
        self.settings.write_text(release["ConfigMap/northbridge"]["data"]["northbridge.yaml"])

    def environment(self):
        names = (f"NORTHBRIDGE__{name.replace('.', '__').upper()}" for name in self.secrets)
        return os.environ | dict(zip(names, self.secrets.values()))

    def start_listener(self, test):
        """Starts northbridge with the settings of the release; returns its address."""
        command = [NORTHBRIDGE, "dev", "--set", "http.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"]
        for path in self.paths:
            command += ["--set", f"http.paths={path}"]
        dev = subprocess.Popen(command, env=self.environment(), stdout=subprocess.PIPE, text=True)
        test.addCleanup(dev.stdout.close)
        test.addCleanup(dev.wait)
        test.addCleanup(dev.kill)
        for line in dev.stdout:
            if found := re.search(r"http://(127\.0\.0\.1:\d+)/(?!metrics)", line):
                return found[1]
        raise AssertionError("northbridge dev printed no address")

    def run(self, address, **changed):
        """Runs the test against an address, and returns its exit code."""
        secrets = self.secrets | changed
        password = Path(self.directory, "password")
        password.write_text(secrets.get("auth.basic.password", ""))
        replaced = {
            "northbridge:8080": address,
            "$(TOKEN)": secrets.get("auth.token", ""),
            "$(USERNAME)": secrets.get("auth.basic.username", ""),
            "/etc/northbridge/secrets/auth.basic.password": str(password),
            "/etc/northbridge/config/northbridge.yaml": str(self.settings),
        }
        arguments = self.arguments
        for old, new in replaced.items():
            arguments = [argument.replace(old, new) for argument in arguments]
        ran = subprocess.run([NORTHBRIDGE, *arguments], env=self.environment(), capture_output=True, timeout=60)
        return ran.returncode


class HelmTest(unittest.TestCase):
    def test_a_push_is_answered_200_and_with_other_credentials_it_is_not(self):
        kafka = {"kafka": {"bootstrap_servers": "kafka:9092"}}
        for config, secret, *more in (
            ({}, None),
            ({"http": {"paths": ["/notifications/{token}"]}}, "auth.token"),
            ({}, "auth.token"),
            ({}, "auth.basic.password", "auth.basic.username"),
        ):
            with self.subTest(config=config, secret=secret), tempfile.TemporaryDirectory() as directory:
                pod = Pod(directory, kafka | config, *([secret, *more] if secret else []))
                address = pod.start_listener(self)
                self.assertEqual(pod.run(address), 0)
                if secret:
                    self.assertEqual(pod.run(address, **{secret: "another"}), 1)

    def test_the_program_accepts_the_settings(self):
        # Those with TLS need the files of a Secret.
        for values in "ipv6", "kubectl", "plain", "spool":
            release = Release(read((VALUES / f"{values}.yaml").read_text())[0])
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(release["ConfigMap/northbridge"]["data"]["northbridge.yaml"])
                file.flush()
                checked = subprocess.run([NORTHBRIDGE, "config", "check", "--config", file.name], capture_output=True)
                self.assertEqual(checked.returncode, 0, checked.stderr)


if __name__ == "__main__":
    unittest.main()
