"""Checks a bill of materials: is it valid CycloneDX, and does it list every crate of a
program that cargo-auditable built?

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
    """What cargo-auditable wrote into the program, without what only its build needed."""
    with tempfile.NamedTemporaryFile() as section:
        subprocess.run(["objcopy", "--output-target=binary", "--only-section=.dep-v0",
                        "--set-section-flags=.dep-v0=alloc", program, section.name], check=True)
        packages = json.loads(zlib.decompress(section.read()))["packages"]
    return {(package["name"], package["version"]) for package in packages
            if package.get("kind") != "build" and not package.get("root")}


text = open(sys.argv[1], encoding="utf-8").read()
if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    sys.exit(str(error))
listed = {(component["name"], component["version"]) for component in json.loads(text)["components"]}
for program in sys.argv[2:]:
    crates = crates_of(program)
    if missing := crates - listed:
        sys.exit(f"{program} contains what {sys.argv[1]} does not list: {sorted(missing)}")
    print(f"{len(crates)} crates of {program} are listed")
