"""Reads Kubernetes manifests."""

import yaml


def read(stream):
    """The objects in a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(stream) if document]


def pod_of(document):
    """The pod, or the pod template, of an object; None if it has none."""
    if document["kind"] == "Pod":
        return document
    return document.get("spec", {}).get("template")


def hook_of(document):
    """The event and the weight of a Helm hook; None if the object is part of the release."""
    annotations = document["metadata"].get("annotations") or {}
    if "helm.sh/hook" not in annotations:
        return None
    return annotations["helm.sh/hook"], int(annotations.get("helm.sh/hook-weight", "0"))
