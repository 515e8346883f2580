"""Every overlay renders, validates against the Kubernetes schemas and agrees with the code."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from services.infer.adapters.nim import NimSettings
from services.infer.adapters.vllm import VllmSettings
from services.infer.settings import InferSettings, ServerSettings
from services.retrieve.adapters.qdrant.options import parse
from services.retrieve.settings import RetrieveSettings
from services.runtime.settings import OFFSETS, RuntimeSettings

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.parent for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))
OTHERS = ("nim", "qdrant", "redis", "vllm")
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
            # What NIM writes where is not documented.
            assert context["readOnlyRootFilesystem"] is (name != "nim"), name
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
    assert ("retrieve", "grpc") in reaches(objects, "qdrant")


def reaches(objects: list[dict[str, Any]], name: str) -> set[tuple[str, str]]:
    """Pods and the ports of `name` that its network policy lets them in by."""
    (policy,) = (
        one for one in objects if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == name
    )
    assert policy["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}
    return {
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for rule in policy["spec"]["ingress"]
        for peer in rule.get("from", ())
        for port in rule["ports"]
    }


def test_policies_let_the_mesh_s_calls_pass_and_no_others(objects: list[dict[str, Any]]) -> None:
    for name in ("preprocess", "retrieve", "infer", "postprocess"):
        assert reaches(objects, name) == {("gateway", "grpc")}
    assert reaches(objects, "gateway") == {("kong", "http"), ("kong", "grpc")}
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    closed = {one["metadata"]["name"] for one in policies if "egress" in one["spec"]}
    assert closed == {"preprocess", "postprocess"}  # the others call stores and engines
    for policy in policies:
        name = policy["metadata"]["name"]
        (container,) = workloads(objects)[name]["spec"]["template"]["spec"]["containers"]
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= {
            port["name"] for port in container["ports"]
        }


@pytest.mark.parametrize(
    ("overlay", "settings", "server"), [("gpu", VllmSettings, "vllm"), ("nim", NimSettings, "nim")]
)
def test_infer_asks_the_engine_beside_it(
    overlay: str,
    settings: type[ServerSettings],
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder,) = (path for path in OVERLAYS if path.name == overlay)
    objects = [item for item in yaml.safe_load_all(render(folder)) if item]
    (container,) = workloads(objects)["infer"]["spec"]["template"]["spec"]["containers"]
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one.get("value", "a-key"))
    assert InferSettings().model_backend == server
    url = urlsplit(settings().url)
    assert url.hostname == server
    services = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Service"}
    assert url.port in [port["port"] for port in services[server]["spec"]["ports"]]
    assert ("infer", "http") in reaches(objects, server)


def test_redis_serves_counts_and_the_query_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = (path for path in OVERLAYS if path.name == "redis")
    objects = [item for item in yaml.safe_load_all(render(folder)) if item]
    (shared,) = (
        one for one in objects if one["kind"] == "ConfigMap" and "REDIS_URL" in one["data"]
    )
    monkeypatch.setenv("REDIS_URL", shared["data"]["REDIS_URL"])
    url = RetrieveSettings().redis_url
    assert url is not None
    assert url.get_secret_value() == shared["data"]["REDIS_URL"]
    assert {who for who, _ in reaches(objects, "redis")} == {"gateway", "kong", "retrieve"}
    compose = yaml.safe_load((ROOT / "compose.redis.yaml").read_text(encoding="utf-8"))
    for name in ("gateway", "retrieve"):
        assert compose["services"][name]["environment"]["REDIS_URL"]
    # Query embeddings must make room for each other, not stop the counting.
    (container,) = workloads(objects)["redis"]["spec"]["template"]["spec"]["containers"]
    for command in (container["args"], compose["services"]["redis"]["command"]):
        assert command[command.index("--maxmemory-policy") + 1] == "volatile-lru"


def test_images_install_extras_that_exist_and_torch_only_where_texts_are_embedded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    cases = dict(re.findall(r'^ +([a-z|]+)\) extras="([^"]+)"', dockerfile, re.MULTILINE))
    assert cases["retrieve"].split(",")[0] == "retrieve"
    installed = {
        service: value.replace("${SERVICE}", service).split(",")
        for case, value in cases.items()
        for service in case.split("|")
    }
    assert installed.keys() == OFFSETS.keys() - {"worker"}
    for service, names in installed.items():
        assert set(names) <= extras.keys(), service
        torch = any(one.startswith("torch") for name in names for one in extras[name])
        assert torch is (service == "retrieve"), service


def test_keys_of_engines_go_to_nobody_else() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    files = {
        name: item["env_file"][0]["path"] for name, item in compose.items() if "env_file" in item
    }
    assert files == {"infer": "infer.env", "retrieve": "retrieve.env"}
    for name, item in compose.items():
        assert not any("KEY" in one for one in item.get("environment", {}) if name != "kong"), name
