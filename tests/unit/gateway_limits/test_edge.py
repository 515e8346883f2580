"""Which of the file's limits binds whom."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.limits.edge import parse_edge, read_edge
from gateway.limits.periods import Period
from services.runtime.errors import FailedPrecondition

REPOSITORY = Path(__file__).resolve().parents[3]


def limiting(minute: int, **more: Any) -> dict[str, Any]:
    return {"name": "rate-limiting", "config": {"minute": minute, "policy": "local"}} | more


def document(**plugins: list[dict[str, Any]]) -> dict[str, Any]:
    """One service with the routes /v1 and /v1/query; plugins by the place they stand in."""
    return {
        "plugins": plugins.get("everywhere", []),
        "services": [
            {
                "name": "gateway",
                "plugins": plugins.get("service", []),
                "routes": [
                    {"name": "v1", "paths": ["/v1"], "plugins": plugins.get("route", [])},
                    {"name": "query", "paths": ["/v1/query"]},
                ],
            }
        ],
        "consumers": [
            {"username": "alice", "plugins": plugins.get("consumer", [])},
            {"username": "bob"},
        ],
    }


def limit_of(what: dict[str, Any], consumer: str | None, path: str = "/v1/search") -> int | None:
    edge = parse_edge(what)
    route = edge.route("POST", path)
    assert route is not None
    plugin = edge.plugin(route, consumer)
    return dict(plugin.limits)[Period.MINUTE] if plugin else None


def test_the_most_specific_plugin_wins_alone():
    layers: dict[str, list[dict[str, Any]]] = {}
    assert limit_of(document(**layers), "alice") is None
    layers["everywhere"] = [limiting(1)]
    assert limit_of(document(**layers), "alice") == 1
    layers["service"] = [limiting(2)]
    assert limit_of(document(**layers), "alice") == 2
    layers["route"] = [limiting(3)]
    assert limit_of(document(**layers), "alice") == 3
    layers["consumer"] = [limiting(4)]
    assert limit_of(document(**layers), "alice") == 4
    assert limit_of(document(**layers), "bob") == 3
    assert limit_of(document(**layers), None) == 3
    layers["everywhere"].append(limiting(5, route="v1", service="gateway"))
    assert limit_of(document(**layers), "alice") == 5, "route and service before consumer"
    layers["everywhere"].append(limiting(6, consumer="alice", service={"name": "gateway"}))
    assert limit_of(document(**layers), "alice") == 6
    layers["everywhere"].append(limiting(7, consumer={"username": "alice"}, route={"name": "v1"}))
    assert limit_of(document(**layers), "alice") == 7
    layers["everywhere"].append(limiting(8, consumer="alice", route="v1", service="gateway"))
    assert limit_of(document(**layers), "alice") == 8
    assert limit_of(document(**layers), "alice", "/v1/query") == 6, "another route"


def test_a_plugin_that_is_off_or_of_another_protocol_does_not_bind():
    layers = {"everywhere": [limiting(1)], "route": [limiting(2, enabled=False)]}
    assert limit_of(document(**layers), None) == 1
    layers["route"] = [limiting(2, protocols=["grpc", "grpcs"])]
    assert limit_of(document(**layers), None) == 1


def test_routes_are_found_as_kong_finds_them():
    edge = parse_edge(
        {
            "services": [
                {
                    "name": "gateway",
                    "routes": [
                        {"name": "v1", "paths": ["/v1"]},
                        {"name": "longer", "paths": ["/v1/query"]},
                        {"name": "pattern", "paths": ["~/v1/query/[0-9]+$"]},
                        {"name": "health", "paths": ["/health"], "methods": ["GET"]},
                        {"name": "rag", "paths": ["/rag.Service/"], "protocols": ["grpc"]},
                    ],
                }
            ]
        }
    )

    def name(method: str, path: str, grpc: bool = False) -> str | None:
        route = edge.route(method, path, grpc=grpc)
        return route.name if route else None

    assert name("POST", "/v1/chat/completions") == "v1"
    assert name("POST", "/v1/query") == "longer"
    assert name("POST", "/v1/query/17") == "pattern"
    assert name("POST", "/v1/query/x") == "longer"
    assert name("GET", "/health/live") == "health"
    assert name("POST", "/health/live") is None
    assert name("GET", "/elsewhere") is None
    assert name("POST", "/rag.Service/Query") is None
    assert name("POST", "/rag.Service/Query", grpc=True) == "rag"


@pytest.mark.parametrize("place", ["everywhere", "service", "route"])
def test_a_jwt_plugin_guards_the_routes_it_is_bound_to(place):
    edge = parse_edge(document(**{place: [{"name": "jwt"}]}))
    v1, query = edge.route("POST", "/v1/search"), edge.route("POST", "/v1/query")
    assert v1 is not None
    assert query is not None
    assert v1.needs_token
    assert query.needs_token is (place != "route")
    off = parse_edge(document(**{place: [{"name": "jwt", "enabled": False}]}))
    unguarded = off.route("POST", "/v1/search")
    assert unguarded is not None
    assert not unguarded.needs_token


def test_the_file_of_this_repository_can_be_enforced():
    edge = read_edge(REPOSITORY / "gateway" / "kong" / "kong.yml")
    chosen = []
    for route, grpc in (
        (edge.route("POST", "/v1/query"), False),
        (edge.route("POST", "/ragmesh.gateway.v1.RagService/Query", grpc=True), True),
    ):
        assert route is not None
        assert route.needs_token
        plugin = edge.plugin(route, "local", grpc=grpc)
        assert plugin is not None
        assert plugin.limits
        chosen.append(plugin)
    health = edge.route("GET", "/health/live")
    assert health is not None
    assert not health.needs_token
    # One plugin stands for all routes, so that a consumer has one count over REST and gRPC.
    assert [edge.plugin(health, None)] * 2 == chosen


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"minute": 1, "limit_by": "header", "header_name": "x-a"}, "header"),
        ({"minute": 1, "limit_by": "credential"}, "limit_by: credential"),
        ({"minute": 1, "fault_tolerant": False}, "fault_tolerant: False"),
        ({"minute": 1, "error_code": 503}, "error_code: 503"),
        ({"minute": 1, "burst": 5}, "burst"),
        ({"minute": 0}, "minute: 0"),
        ({"minute": True}, "minute: True"),
        ({"policy": "local"}, "names no limit"),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(tmp_path, config, named):
    file = tmp_path / "kong.yml"
    file.write_text(yaml.safe_dump({"plugins": [{"name": "rate-limiting", "config": config}]}))
    with pytest.raises(FailedPrecondition, match="cannot be enforced") as refused:
        read_edge(file)
    assert refused.value.reason == "EDGE_UNSUPPORTED"
    assert named in refused.value.message


def test_consumer_groups_and_hosts_are_refused():
    with pytest.raises(ValueError, match="consumer_group"):
        parse_edge({"plugins": [limiting(1, consumer_group="gold")]})
    with pytest.raises(ValueError, match="hosts"):
        parse_edge({"services": [{"name": "s", "routes": [{"name": "r", "hosts": ["a"]}]}]})
    with pytest.raises(ValueError, match="twice"):
        parse_edge({"plugins": [limiting(1), limiting(2)]})
