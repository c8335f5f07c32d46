"""Validates Kubernetes manifests on standard input against the published schemas of
one Kubernetes version, and rejects unknown fields. Prints custom resources as JSON
lines, which custom-resources.mjs validates.

    schemas.py VERSION <manifest.yaml
"""

import json
import sys

import kubernetes_validate

from objects import read

CUSTOM = ("monitoring.coreos.com/", "keda.sh/", "gateway.networking.k8s.io/", "cert-manager.io/")

version, known, wrong = sys.argv[1], 0, 0
for document in read(sys.stdin):
    name = f"{document['kind']} {document['metadata']['name']}"
    if document["apiVersion"].startswith(CUSTOM):
        print(json.dumps(document))
        continue
    try:
        if kubernetes_validate.validate(document, version, strict=True) != version:
            sys.exit(f"there are no schemas for Kubernetes {version}")
        known += 1
    except kubernetes_validate.ValidationError as error:
        wrong += 1
        path = ".".join(map(str, error.path))
        print(f"{name}, Kubernetes {version}: {path}: {error.message}", file=sys.stderr)
print(f"{known} objects are valid for Kubernetes {version}", file=sys.stderr)
sys.exit(1 if wrong or not known else 0)
