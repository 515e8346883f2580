"""What a cluster needs of the keys, as Kubernetes objects: public keys, and each service's TLS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gateway.certificates import SERVICES


def manifests(rendered: Path, tls: Path) -> str:
    """A ConfigMap ``ragmesh-kong`` and a Secret ``ragmesh-tls-<service>`` each, as YAML.

    The keys that sign tokens, and the CA's, stay where they are.
    """
    return yaml.safe_dump_all(list(_objects(rendered, tls)), sort_keys=False, allow_unicode=True)


def _objects(rendered: Path, tls: Path) -> Iterator[dict[str, Any]]:
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ragmesh-kong"},
        "data": {"kong.yml": rendered.read_text("utf-8")},
    }
    authority = (tls / "ca.crt").read_text("ascii")
    for service in SERVICES:
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"ragmesh-tls-{service}"},
            "type": "kubernetes.io/tls",
            "stringData": {
                "ca.crt": authority,
                "tls.crt": (tls / f"{service}.crt").read_text("ascii"),
                "tls.key": (tls / f"{service}.key").read_text("ascii"),
            },
        }
