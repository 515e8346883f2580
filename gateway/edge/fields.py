"""Which fields of the rendered file hold without Kong, and which cannot, each with its reason.

A field of a plugin that changes who may do what is enforced, or must have the one value that
holds here anyway, or stops the start. Nothing in the file is ignored without standing here.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

ENFORCED = frozenset(
    {
        # which route a request takes
        "services.name",
        "services.plugins",
        "services.routes",
        "routes.name",
        "routes.protocols",
        "routes.methods",
        "routes.paths",
        "routes.regex_priority",
        "routes.plugins",
        # whose tokens are accepted
        "consumers.username",
        "consumers.tags",
        "consumers.jwt_secrets",
        "consumers.plugins",
        "jwt_secrets.key",
        "jwt_secrets.algorithm",
        "jwt_secrets.rsa_public_key",
        "jwt_secrets.tags",
        # where a plugin binds
        "plugins.name",
        "plugins.enabled",
        "plugins.config",
        "plugins.protocols",
        "plugins.consumer",
        "plugins.route",
        "plugins.service",
        # what it does
        "jwt.claims_to_verify",
        "jwt.maximum_expiration",
        "rate-limiting.second",
        "rate-limiting.minute",
        "rate-limiting.hour",
        "rate-limiting.day",
        "rate-limiting.month",
        "rate-limiting.year",
        "rate-limiting.limit_by",
        "rate-limiting.hide_client_headers",
        "rate-limiting.error_message",
        "request-size-limiting.allowed_payload_size",
        "request-size-limiting.size_unit",
        "request-size-limiting.require_content_length",
        "cors.origins",
        "cors.methods",
        "cors.headers",
        "cors.exposed_headers",
        "cors.max_age",
        "ip-restriction.allow",
        "ip-restriction.deny",
    }
)

_WAY_UP = "the embedded gateway proxies to nobody: it answers itself"
_SHARED = "the gateway counts in its own Redis (REDIS_URL), or in its process"
_COUNTS = "the gateway has metrics of its own on its metrics port"
_CLIENT = "TLS and HTTP/2 in front of the embedded gateway are a proxy's work"
EDGE_ONLY: Mapping[str, str] = {
    "services.protocol": _WAY_UP,
    "services.host": _WAY_UP,
    "services.port": _WAY_UP,
    "services.retries": _WAY_UP,
    "services.connect_timeout": _WAY_UP,
    "services.write_timeout": _WAY_UP,
    "services.read_timeout": _WAY_UP,
    "routes.strip_path": _WAY_UP,
    "routes.preserve_host": _WAY_UP,
    "routes.request_buffering": _WAY_UP,
    "routes.response_buffering": _WAY_UP,
    "routes.https_redirect_status_code": _CLIENT,
    "upstreams": _WAY_UP,
    "plugins.tags": "tags of plugins change nothing",
    "plugins.instance_name": "a name for people",
    "rate-limiting.policy": _SHARED,
    "rate-limiting.redis": _SHARED,
    "rate-limiting.sync_rate": _SHARED,
    "correlation-id.generator": "any id is unique; the gateway's is a UUID as well",
    "prometheus": _COUNTS,
    "request-termination": (
        "it hides routes from outside; the embedded gateway has no inside, its admin routes ask "
        "for the scope models:admin"
    ),
}
"""Field, or whole plugin or entity, and why it holds at Kong alone."""

FIXED: Mapping[str, tuple[Any, ...]] = {
    "jwt.key_claim_name": ("kid",),
    "jwt.secret_is_base64": (False,),
    "jwt.uri_param_names": ([],),
    "jwt.cookie_names": ([],),
    "jwt.header_names": (["authorization"],),
    "jwt.run_on_preflight": (False,),
    "jwt.anonymous": (None,),
    "rate-limiting.fault_tolerant": (True,),
    "rate-limiting.error_code": (429,),
    "rate-limiting.header_name": (None,),
    "rate-limiting.path": (None,),
    "cors.credentials": (False,),
    "cors.preflight_continue": (False,),
    "cors.private_network": (False,),
    "correlation-id.header_name": ("x-request-id",),
    "correlation-id.echo_downstream": (True,),
}
"""Fields that must have one of these values, which holds here anyway."""

# Of the Lua that shapes Kong's errors, header_filter and body_filter: its twin is gateway.errors.
POST_FUNCTION_SHA256 = "71ab1e9a4a4ba200afd2d4fb6b315910c10c92aa35955ec362fd61bd3a13c170"
_TOP = frozenset({"_format_version", "_transform", "services", "upstreams", "plugins", "consumers"})


def unenforced(document: Mapping[str, Any]) -> list[str]:
    """What the file says and the embedded gateway would not do, in words; empty when all holds."""
    found = [f"the section {name}" for name in document.keys() - _TOP]
    for service in document.get("services") or ():
        found += _unknown("services", service)
        for route in service.get("routes") or ():
            found += _unknown("routes", route)
            found += _plugins(route)
        found += _plugins(service)
    for consumer in document.get("consumers") or ():
        found += _unknown("consumers", consumer)
        for secret in consumer.get("jwt_secrets") or ():
            found += _unknown("jwt_secrets", secret)
        found += _plugins(consumer)
        bound = {plugin["name"] for plugin in consumer.get("plugins") or ()}
        found += [f"{name} of one consumer" for name in sorted(bound - {"rate-limiting"})]
    return found + _plugins(document)


def fingerprint(config: Mapping[str, Any]) -> str:
    """The hash of a post-function's Lua."""
    phases = sorted(config.items())
    text = "\0".join(f"{phase}\0" + "\0".join(functions) for phase, functions in phases)
    return hashlib.sha256(text.encode()).hexdigest()


def _unknown(kind: str, entity: Mapping[str, Any]) -> Iterator[str]:
    for name in entity:
        if f"{kind}.{name}" not in ENFORCED and f"{kind}.{name}" not in EDGE_ONLY:
            yield f"the field {name} of {kind}"


def _plugins(holder: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for plugin in holder.get("plugins") or ():
        name = str(plugin.get("name"))
        found += _unknown("plugins", plugin)
        if plugin.get("enabled") is False or name in EDGE_ONLY:
            continue
        config = plugin.get("config") or {}
        if name == "post-function":
            if fingerprint(config) != POST_FUNCTION_SHA256:
                found.append("a post-function that is not the one the gateway has a twin of")
            continue
        if not any(field.startswith(f"{name}.") for field in (*ENFORCED, *FIXED)):
            found.append(f"the plugin {name}")
            continue
        found += _config(name, config)
    return found


def _config(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    for field, value in config.items():
        path = f"{name}.{field}"
        if path in FIXED:
            if value not in FIXED[path]:
                yield f"{name} with {field}: {value}"
        elif path not in ENFORCED and path not in EDGE_ONLY:
            yield f"{name} with {field}"
