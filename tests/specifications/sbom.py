"""Checks a bill of materials: is it valid CycloneDX, and is each of its crates, in the same
version, in a program that cargo-auditable built?

The program may name more: cargo-auditable takes the features of tests for those of the
program, and counts procedural macros in.

    python sbom.py sbom.cdx.json [PROGRAM]
"""

import json
import subprocess
import sys
import tempfile
import zlib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def crates_of(program):
    """The list that cargo-auditable wrote into the program."""
    with tempfile.NamedTemporaryFile() as section:
        subprocess.run(["objcopy", "--output-target=binary", "--only-section=.dep-v0",
                        "--set-section-flags=.dep-v0=alloc", program, section.name], check=True)
        packages = json.loads(zlib.decompress(section.read()))["packages"]
    return {(package["name"], package["version"]) for package in packages}


text = open(sys.argv[1], encoding="utf-8").read()
if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    sys.exit(str(error))
listed = {(component["name"], component["version"]) for component in json.loads(text)["components"]
          if component["purl"].startswith("pkg:cargo/")}
for program in sys.argv[2:]:
    if unknown := listed - crates_of(program):
        sys.exit(f"{sys.argv[1]} lists what is not in {program}: {sorted(unknown)}")
    print(f"the {len(listed)} crates of {sys.argv[1]} are in {program}")
