"""The file that Kong and the gateway load: what Kong would take, and what holds without Kong."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.credentials import read_document
from gateway.edge.fields import EDGE_ONLY, ENFORCED, FIXED, unenforced
from gateway.edge.rules import EdgeRules, Rules
from gateway.keys import SOURCE, Keyring
from gateway.settings import GatewaySettings
from services.runtime.errors import FailedPrecondition, InvalidArgument
from tests.unit.gateway_edge.kong_schema import PLUGINS, faults


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """As rendered, with a consumer."""
    keyring = Keyring(tmp_path)
    keyring.create("acme", tenants=["acme"], models=["default", "openai/gpt-4"], algorithm="RS256")
    keyring.rotate("acme", algorithm="ES256")
    return read_document(keyring.rendered)


def plugin(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = [each for each in document["plugins"] if each["name"] == name]
    assert len(found) == 1
    return found[0]


def test_kong_would_take_the_file(document):
    assert faults(document) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["services"][3].update(tls_verify=True), "tls_verify"),
        (lambda d: d["services"][0].update(timeout=5), "timeout"),
        (lambda d: d["services"][0]["routes"][0].update(path="/v1"), "path"),
        (lambda d: d["upstreams"][0]["healthchecks"]["active"].update(type="grpc"), "active.type"),
        (lambda d: plugin(d, "cors")["config"].update(origin="*"), "origin"),
        (lambda d: plugin(d, "rate-limiting")["config"].update(hour=5), "grow"),
        (lambda d: plugin(d, "rate-limiting")["config"].update(policy="redis"), "redis.host"),
        (lambda d: d["consumers"][0]["tags"].append("a/b"), "tags"),
        (lambda d: d["plugins"].append({"name": "oidc"}), "oidc"),
        (lambda d: d.update(routes=[]), "routes"),
    ],
)
def test_the_schema_finds_what_kong_would_refuse(document, change, told):
    change(document)
    assert any(told in fault for fault in faults(document))


def test_nothing_in_the_file_is_ignored_without_kong(document):
    assert unenforced(document) == []


def test_every_field_that_kong_knows_is_enforced_fixed_refused_or_edge_only(document):
    """A field of a plugin in use, added with any value: either it stands in one of the lists, or
    the embedded gateway does not start."""
    known = ENFORCED | FIXED.keys() | EDGE_ONLY.keys()
    for name in sorted({each["name"] for each in document["plugins"]} | {"jwt"}):
        if name in EDGE_ONLY or name in ("post-function", "bot-detection"):
            continue
        for field in PLUGINS[name]:
            if f"{name}.{field}" in known:
                continue
            changed = copy.deepcopy(document)
            holder = changed["services"][0] if name == "jwt" else changed
            found = plugin(holder, name)
            found["enabled"] = True
            found["config"][field] = "anything"
            assert unenforced(changed) == [f"{name} with {field}"], field


def test_every_exception_has_a_reason():
    assert all(len(reason) > 10 for reason in EDGE_ONLY.values())
    assert not ENFORCED & EDGE_ONLY.keys()
    assert not FIXED.keys() & (ENFORCED | EDGE_ONLY.keys())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["plugins"].append({"name": "acl", "config": {}}), "the plugin acl"),
        (lambda d: plugin(d, "bot-detection").pop("enabled"), "bot-detection"),
        (lambda d: plugin(d, "cors")["config"].update(credentials=True), "credentials"),
        (
            lambda d: plugin(d["services"][0], "jwt")["config"].update(key_claim_name="iss"),
            "key_claim_name",
        ),
        (
            lambda d: plugin(d["services"][0], "jwt")["config"].update(uri_param_names=["jwt"]),
            "uri_param_names",
        ),
        (
            lambda d: plugin(d, "post-function")["config"].update(access=["return"]),
            "post-function",
        ),
        (lambda d: d["services"][0]["routes"][0].update(headers={"a": ["b"]}), "headers"),
        (lambda d: d["consumers"][0].update(custom_id="x"), "custom_id"),
        (lambda d: d["consumers"][0].update(plugins=[{"name": "cors"}]), "of one consumer"),
        (lambda d: d.update(certificates=[]), "certificates"),
    ],
)
def test_what_would_be_ignored_stops_the_start(document, tmp_path, change, told):
    change(document)
    path = tmp_path / "changed.yml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(FailedPrecondition, match="EDGE_UNSUPPORTED") as refused:
        EdgeRules(path)
    assert told in refused.value.message


def test_every_jwt_plugin_says_the_same(document):
    configs = [
        plugin(service, "jwt")["config"] for service in document["services"] if "plugins" in service
    ]
    assert len(configs) == 3
    assert all(config == configs[0] for config in configs)


def test_what_is_repeated_is_safe_to_repeat(document):
    for service in document["services"]:
        methods = {
            method for route in service["routes"] for method in route.get("methods", ["POST"])
        }
        assert service["retries"] == 0 or methods <= {"GET", "HEAD"}, service["name"]
        for route in service["routes"]:
            if "/v1" in str(route["paths"]) and route["name"] != "ragmesh-admin":
                assert route["response_buffering"] is False


def test_services_stand_on_upstreams_that_are_probed(document):
    upstreams = {upstream["name"]: upstream for upstream in document["upstreams"]}
    for service in document["services"]:
        checks = upstreams[service["host"]]["healthchecks"]
        assert checks["active"]["healthy"]["interval"] > 0
        assert checks["active"]["unhealthy"]["interval"] > 0
        assert checks["passive"]["unhealthy"]["tcp_failures"] > 0
        # A slow first token and a shed request are no sign of sickness.
        assert checks["passive"]["unhealthy"]["timeouts"] == 0
        assert checks["passive"]["unhealthy"].get("http_failures", 0) == 0
        assert service["read_timeout"] >= 60_000


def test_sizes_fit_the_gateways_own(document):
    settings = GatewaySettings()
    rules = Rules(document)

    def most(method: str, path: str) -> int:
        size = rules.bindings(rules.route(method, path)).size
        assert size is not None
        return size.bytes

    assert most("POST", "/v1/collections/a/documents") == settings.max_upload_bytes
    assert most("POST", "/v1/collections/a/import") == settings.max_upload_bytes
    assert most("POST", "/v1/collections/a/reindex") == settings.max_json_bytes
    assert most("POST", "/v1/query") == settings.max_json_bytes
    assert most("POST", "/v1/collections/a/documents/x") == settings.max_json_bytes


def test_routes(document):
    rules = Rules(document)

    def name(method: str, path: str) -> str | None:
        route = rules.route(method, path)
        return route.name if route else None

    assert name("GET", "/v1/models") == "ragmesh-v1-read"
    assert name("POST", "/v1/query") == "ragmesh-v1"
    assert name("OPTIONS", "/v1/query") == "ragmesh-v1"
    assert name("POST", "/v1/collections/a/documents") == "ragmesh-documents"
    for method in ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"):
        assert name(method, "/v1/admin/models") == "ragmesh-admin"
    for path in ("/", "/docs", "/openapi.json", "/static/app.js", "/health/ready"):
        assert name("GET", path) in ("ragmesh-docs", "ragmesh-health")
    for path in ("/metrics", "/docsx", "/admin", "/v2/query"):
        assert name("GET", path) is None


def test_an_operator_changes_plugins_and_goes_back(tmp_path):
    keyring = Keyring(tmp_path)
    keyring.create("acme", tenants=["acme"])
    before = keyring.rendered.read_text()
    keyring.configure("ip-restriction", {"allow": ["10.0.0.0/8"]})
    keyring.configure("rate-limiting", {"policy": "redis", "redis": {"host": "redis"}})
    document = read_document(keyring.rendered)
    assert faults(document) == []
    assert unenforced(document) == []
    assert plugin(document, "ip-restriction") == {
        "name": "ip-restriction",
        "config": {"allow": ["10.0.0.0/8"]},
    }
    limits = plugin(document, "rate-limiting")["config"]
    assert (limits["minute"], limits["policy"]) == (6000, "redis")
    rules = EdgeRules(keyring.rendered).current
    bound = rules.bindings(rules.route("GET", "/v1/models")).addresses
    assert bound is not None
    assert bound.admits("10.1.2.3")
    assert not bound.admits("192.0.2.1")
    assert not bound.admits("")
    keyring.configure("ip-restriction", None)
    keyring.configure("rate-limiting", None)
    assert keyring.rendered.read_text() == before
    for name, config in (
        ("jwt", {}),
        ("post-function", {}),
        ("cors", {"credentials": True}),
        ("rate-limiting", {"limit_by": "header"}),
        ("ip-restriction", {"allow": ["everywhere"]}),
    ):
        with pytest.raises(InvalidArgument):
            keyring.configure(name, config)
    assert keyring.rendered.read_text() == before


def test_a_changed_file_is_followed_and_a_broken_one_is_not(tmp_path):
    path, clock = tmp_path / "kong.yml", [0.0]
    path.write_text(SOURCE.read_text())
    rules = EdgeRules(path, monotonic=lambda: clock[0])
    first = rules.current
    path.write_text("services: [")
    clock[0] += 1
    assert rules.current is first
    path.write_text("services: []")
    clock[0] += 1
    assert not rules.current.has_routes
