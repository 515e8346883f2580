"""Every overlay renders, validates against the Kubernetes schemas and agrees with the code."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.retrieve.adapters.qdrant.options import parse
from services.retrieve.settings import RetrieveSettings
from services.runtime.settings import OFFSETS, RuntimeSettings

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.parent for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))
OTHERS = ("qdrant", "redis")
"""What runs beside the mesh, with secrets of its own."""
GRPC_BASE = RuntimeSettings.model_fields["grpc_base"].default
METRICS_BASE = RuntimeSettings.model_fields["metrics_base"].default

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which carries kustomize, is not installed"
)


def render(overlay: Path) -> str:
    return subprocess.run(
        ["kubectl", "kustomize", str(overlay)], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module", params=OVERLAYS, ids=lambda path: path.name)
def rendered(request: pytest.FixtureRequest) -> str:
    return render(request.param)


@pytest.fixture
def objects(rendered: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(rendered) if item]


def workloads(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds = ("Deployment", "StatefulSet")
    return {item["metadata"]["name"]: item for item in objects if item["kind"] in kinds}


def test_validates_against_the_schemas(rendered: str, tmp_path: Path) -> None:
    manifest = tmp_path / "rendered.yaml"
    manifest.write_text(rendered, encoding="utf-8")
    command = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run(
        [command, "--strict", manifest], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_runs_every_process_and_kong(objects: list[dict[str, Any]]) -> None:
    assert set(workloads(objects)) - set(OTHERS) == {*OFFSETS, "kong"} - {"worker"}


def test_ports_are_those_of_the_chassis(objects: list[dict[str, Any]]) -> None:
    for name, workload in workloads(objects).items():
        if name not in OFFSETS:
            continue
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["grpc"] == GRPC_BASE + OFFSETS[name]
        assert ports["metrics"] == METRICS_BASE + OFFSETS[name]


def test_grpc_services_are_headless(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        if item["kind"] == "Service" and item["metadata"]["name"] in OFFSETS:
            assert item["spec"]["clusterIP"] == "None", item["metadata"]["name"]


def test_selectors_find_their_pods(objects: list[dict[str, Any]]) -> None:
    pods = [item["spec"]["template"]["metadata"]["labels"] for item in workloads(objects).values()]
    for item in objects:
        if item["kind"] == "Service":
            selector = item["spec"]["selector"].items()
            assert any(selector <= labels.items() for labels in pods), item["metadata"]["name"]


def test_pods_are_restricted(objects: list[dict[str, Any]]) -> None:
    for name, workload in workloads(objects).items():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name


def test_no_key_stands_in_the_manifests(rendered: str) -> None:
    assert "PRIVATE KEY" not in rendered
    assert "kind: Secret" not in rendered


def test_certificates_are_each_service_s_own(objects: list[dict[str, Any]]) -> None:
    for name, workload in workloads(objects).items():
        secrets = [
            volume["secret"]["secretName"]
            for volume in workload["spec"]["template"]["spec"]["volumes"]
            if "secret" in volume
        ]
        assert secrets == ([] if name in OTHERS else [f"ragmesh-tls-{name}"])


def test_kong_shows_its_certificate_and_checks_the_gateways(objects: list[dict[str, Any]]) -> None:
    pod = workloads(objects)["kong"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    kubernetes = {item["name"]: item["value"] for item in container["env"]}
    (folder,) = (
        mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"
    )
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    kong = compose["services"]["kong"]
    for environment, where in ((kubernetes, folder), (kong["environment"], "/var/lib/kong")):
        assert environment["KONG_CLIENT_SSL"] == "on"
        assert environment["KONG_CLIENT_SSL_CERT"] == f"{where}/tls.crt"
        assert environment["KONG_CLIENT_SSL_CERT_KEY"] == f"{where}/tls.key"
        assert environment["KONG_LUA_SSL_TRUSTED_CERTIFICATE"] == f"system,{where}/ca.crt"
        assert environment["KONG_NGINX_PROXY_GRPC_SSL_VERIFY"] == "on"
        assert environment["KONG_NGINX_PROXY_GRPC_SSL_TRUSTED_CERTIFICATE"] == f"{where}/ca.crt"
    # Kong sees what was exported for it, never the volume with the keys that sign.
    assert kong["volumes"] == ["kong:/var/lib/kong:ro"]


def test_kong_may_load_the_json_module(objects: list[dict[str, Any]]) -> None:
    (container,) = workloads(objects)["kong"]["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["KONG_UNTRUSTED_LUA_SANDBOX_REQUIRES"] == "cjson.safe"
    assert environment["KONG_DATABASE"] == "off"


def test_compose_and_dockerfile_agree_on_the_processes() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    built = {name for name, item in compose["services"].items() if "build" in item}
    assert built == {*OFFSETS, "keys"} - {"worker"}
    shared = yaml.safe_load((ROOT / "compose.redis.yaml").read_text(encoding="utf-8"))
    assert shared["services"].keys() - compose["services"].keys() == {"redis"}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for name in OFFSETS.keys() - {"worker"}:
        assert name in dockerfile


def test_several_retrieves_share_a_qdrant() -> None:
    (overlay,) = (path for path in OVERLAYS if path.name == "qdrant")
    objects = [item for item in yaml.safe_load_all(render(overlay)) if item]
    retrieve, qdrant = (workloads(objects)[name] for name in ("retrieve", "qdrant"))
    assert retrieve["spec"]["replicas"] > 1
    (container,) = retrieve["spec"]["template"]["spec"]["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    settings = RetrieveSettings(
        vector_url=values["VECTOR_URL"], qdrant_replicas=values["RAGMESH_QDRANT_REPLICAS"]
    )
    address = parse(settings.vector_url)
    services = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Service"}
    assert address.port in [port["port"] for port in services[address.host]["spec"]["ports"]]
    assert settings.qdrant_replicas <= qdrant["spec"]["replicas"]
    assert services[qdrant["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    (server,) = qdrant["spec"]["template"]["spec"]["containers"]
    keys = [
        one["valueFrom"]["secretKeyRef"]
        for env in (container["env"], server["env"])
        for one in env
        if "valueFrom" in one
    ]
    assert keys[0] == keys[1]
    (policy,) = (one for one in objects if one["kind"] == "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "qdrant"}
