"""The fields that Kong 3.9 (open source) knows, for the entities and plugins that the file uses.

Written down from Kong's published schemas (kong/db/schema/entities, kong/plugins/*/schema.lua), in
place of `kong config parse`, which does not run here. A field that is not listed stops a real Kong.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[Any], bool]


def one_of(*values: Any) -> Check:
    return lambda value: value in values


def integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def path(value: Any) -> bool:
    return text(value) and (value.startswith("/") or value.startswith("~/"))


def tag(value: Any) -> bool:
    return text(value) and not set(value) & {",", "/"} and value.isprintable()


def cidr(value: Any) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def hostname(value: Any) -> bool:
    return text(value) and re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value) is not None


TIMEOUT = integer(1, 2**31 - 2)
SECONDS = number(0, 65535)
COUNT = integer(0, 255)
POSITIVE = number(1, 10**12)
METHODS = list_of(
    one_of("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)
STATUSES = list_of(integer(100, 999))
PROTOCOLS = list_of(one_of("http", "https", "grpc", "grpcs"))

SERVICE: Mapping[str, Check] = {
    "name": text,
    "protocol": one_of("http", "https", "grpc", "grpcs"),
    "host": hostname,
    "port": integer(0, 65535),
    "path": path,
    "retries": integer(0, 32767),
    "connect_timeout": TIMEOUT,
    "write_timeout": TIMEOUT,
    "read_timeout": TIMEOUT,
    "tags": list_of(tag),
    "enabled": boolean,
    # https and tls only: for grpcs Kong 3.9 demands that they are absent.
    "tls_verify": boolean,
    "ca_certificates": list_of(text),
}
HTTPS_ONLY = ("tls_verify", "tls_verify_depth", "ca_certificates", "client_certificate")
ROUTE: Mapping[str, Check] = {
    "name": text,
    "protocols": PROTOCOLS,
    "methods": METHODS,
    "hosts": list_of(text),
    "paths": list_of(path),
    "https_redirect_status_code": one_of(426, 301, 302, 307, 308),
    "regex_priority": integer(0, 2**31),
    "strip_path": boolean,
    "path_handling": one_of("v0", "v1"),
    "preserve_host": boolean,
    "request_buffering": boolean,
    "response_buffering": boolean,
    "tags": list_of(tag),
}
PLUGIN: Mapping[str, Check] = {
    "name": text,
    "instance_name": text,
    "enabled": boolean,
    "protocols": PROTOCOLS,
    "tags": list_of(tag),
    "config": lambda value: isinstance(value, dict),
}
CONSUMER: Mapping[str, Check] = {"username": text, "custom_id": text, "tags": list_of(tag)}
JWT_SECRET: Mapping[str, Check] = {
    "key": text,
    "secret": text,
    "rsa_public_key": text,
    "algorithm": one_of(
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512",
        "PS256", "PS384", "PS512", "EdDSA",
    ),
    "tags": list_of(tag),
}  # fmt: skip
TARGET: Mapping[str, Check] = {
    "target": lambda value: re.fullmatch(r"[a-z0-9.-]+:\d+", str(value)) is not None,
    "weight": integer(0, 65535),
    "tags": list_of(tag),
}
UPSTREAM: Mapping[str, Check] = {
    "name": hostname,
    "algorithm": one_of("round-robin", "least-connections", "consistent-hashing", "latency"),
    "slots": integer(10, 65536),
    "host_header": hostname,
    "hash_on": one_of("none"),
    "tags": list_of(tag),
}
CHECK_TYPES = one_of("tcp", "http", "https", "grpc", "grpcs")
HEALTHCHECKS: Mapping[str, Check] = {
    "threshold": number(0, 100),
    # lua-resty-healthcheck probes with these three alone, whatever the schema takes.
    "active.type": one_of("tcp", "http", "https"),
    "active.timeout": SECONDS,
    "active.concurrency": integer(1, 2**31),
    "active.http_path": path,
    "active.https_sni": text,
    "active.https_verify_certificate": boolean,
    "active.healthy.interval": SECONDS,
    "active.healthy.http_statuses": STATUSES,
    "active.healthy.successes": COUNT,
    "active.unhealthy.interval": SECONDS,
    "active.unhealthy.http_statuses": STATUSES,
    "active.unhealthy.tcp_failures": COUNT,
    "active.unhealthy.timeouts": COUNT,
    "active.unhealthy.http_failures": COUNT,
    "passive.type": CHECK_TYPES,
    "passive.healthy.http_statuses": STATUSES,
    "passive.healthy.successes": COUNT,
    "passive.unhealthy.http_statuses": STATUSES,
    "passive.unhealthy.tcp_failures": COUNT,
    "passive.unhealthy.timeouts": COUNT,
    "passive.unhealthy.http_failures": COUNT,
}
LUA = list_of(text)
PLUGINS: Mapping[str, Mapping[str, Check]] = {
    "jwt": {
        "uri_param_names": list_of(text),
        "cookie_names": list_of(text),
        "header_names": list_of(text),
        "key_claim_name": text,
        "secret_is_base64": boolean,
        "claims_to_verify": list_of(one_of("exp", "nbf")),
        "anonymous": text,
        "run_on_preflight": boolean,
        "maximum_expiration": number(0, 31536000),
        "realm": text,
    },
    "rate-limiting": {
        **dict.fromkeys(("second", "minute", "hour", "day", "month", "year"), POSITIVE),
        "limit_by": one_of("consumer", "credential", "ip", "service", "header", "path"),
        "header_name": text,
        "path": path,
        "policy": one_of("local", "cluster", "redis"),
        "fault_tolerant": boolean,
        "hide_client_headers": boolean,
        "error_code": number(1, 999),
        "error_message": text,
        "sync_rate": number(-1, 10**9),
        "redis": lambda value: (
            value.keys() <= REDIS.keys() and all(REDIS[name](item) for name, item in value.items())
        ),
    },
    "request-size-limiting": {
        "allowed_payload_size": integer(0, 2**53),
        "size_unit": one_of("megabytes", "kilobytes", "bytes"),
        "require_content_length": boolean,
    },
    "cors": {
        "origins": list_of(text),
        "headers": list_of(text),
        "exposed_headers": list_of(text),
        "methods": METHODS,
        "max_age": number(0, 10**9),
        "credentials": boolean,
        "preflight_continue": boolean,
        "private_network": boolean,
    },
    "correlation-id": {
        "header_name": text,
        "generator": one_of("uuid", "uuid#counter", "tracker"),
        "echo_downstream": boolean,
    },
    "prometheus": dict.fromkeys(
        (
            "per_consumer",
            "status_code_metrics",
            "ai_metrics",
            "latency_metrics",
            "bandwidth_metrics",
            "upstream_health_metrics",
        ),
        boolean,
    ),
    "ip-restriction": {
        "allow": list_of(cidr),
        "deny": list_of(cidr),
        "status": number(100, 599),
        "message": text,
    },
    "bot-detection": {"allow": list_of(text), "deny": list_of(text)},
    "request-termination": {
        "status_code": integer(100, 599),
        "message": text,
        "content_type": text,
        "body": text,
        "echo": boolean,
        "trigger": text,
    },
    "post-function": dict.fromkeys(
        ("certificate", "rewrite", "access", "header_filter", "body_filter", "log"), LUA
    ),
}
REDIS: Mapping[str, Check] = {
    "host": text,
    "port": integer(0, 65535),
    "timeout": TIMEOUT,
    "username": text,
    "password": text,
    "database": integer(0, 2**31),
    "ssl": boolean,
    "ssl_verify": boolean,
    "server_name": text,
}


def faults(document: Mapping[str, Any]) -> list[str]:
    """What a Kong 3.9 would refuse, as far as this schema tells."""
    found = []
    if document.get("_format_version") not in ("1.1", "2.1", "3.0"):
        found.append("_format_version")
    known = {"_format_version", "services", "upstreams", "plugins", "consumers"}
    found += [f"section {name}" for name in document.keys() - known]
    for service in document.get("services", ()):
        found += _check("service", SERVICE, service, frozenset({"plugins", "routes"}))
        if service.get("protocol") not in ("https", "tls"):
            found += [f"{name} of {service['name']}" for name in HTTPS_ONLY if name in service]
        found += _plugins(service)
        for route in service.get("routes", ()):
            found += _check("route", ROUTE, route, frozenset({"plugins"}))
            if {"grpc", "grpcs"} & set(route.get("protocols", ())) and "strip_path" in route:
                found.append(f"strip_path of {route['name']}")
            found += _plugins(route)
    for upstream in document.get("upstreams", ()):
        found += _check("upstream", UPSTREAM, upstream, frozenset({"targets", "healthchecks"}))
        found += _check("healthchecks", HEALTHCHECKS, _flat(upstream.get("healthchecks", {}), ""))
        for target in upstream.get("targets", ()):
            found += _check("target", TARGET, target)
    for consumer in document.get("consumers", ()):
        found += _check("consumer", CONSUMER, consumer, frozenset({"jwt_secrets", "plugins"}))
        found += _plugins(consumer)
        for secret in consumer.get("jwt_secrets", ()):
            found += _check("jwt_secret", JWT_SECRET, secret)
    found += _plugins(document)
    return found


def _check(
    kind: str,
    schema: Mapping[str, Check],
    entity: Mapping[str, Any],
    nested: frozenset[str] = frozenset(),
) -> Iterator[str]:
    for name, value in entity.items():
        if name in nested:
            continue
        if name not in schema or not schema[name](value):
            yield f"{kind} {name}: {value}"


def _plugins(holder: Mapping[str, Any]) -> Iterator[str]:
    names = [plugin["name"] for plugin in holder.get("plugins", ())]
    if len(names) != len(set(names)):
        yield f"a plugin stands twice: {names}"
    for plugin in holder.get("plugins", ()):
        yield from _check("plugin", PLUGIN, plugin)
        schema = PLUGINS.get(plugin["name"])
        if schema is None:
            yield f"plugin {plugin['name']}"
            continue
        config = plugin.get("config", {})
        yield from _check(plugin["name"], schema, config)
        yield from _entity_checks(plugin["name"], config)


def _entity_checks(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    if name == "jwt" and config.get("maximum_expiration"):
        verified = config.get("claims_to_verify", ())
        if "exp" not in verified:
            yield "maximum_expiration needs exp"
    if name == "rate-limiting":
        periods = [config[p] for p in ("second", "minute", "hour", "day", "month", "year")
                   if p in config]  # fmt: skip
        if not periods or periods != sorted(periods):
            yield "rate-limiting needs limits that grow with their period"
        if config.get("policy") == "redis" and "host" not in config.get("redis", {}):
            yield "policy redis needs redis.host"
    if name == "ip-restriction" and not config.get("allow") and not config.get("deny"):
        yield "ip-restriction needs allow or deny"
    if name == "request-termination" and "message" in config and "body" in config:
        yield "message and body exclude each other"


def _flat(record: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
