"""The rate-limiting plugins of the rendered Kong file, for a gateway that runs without Kong.

Which plugin binds a request is Kong's rule: of all that apply, the most specific one alone, so
that a route's plugin replaces the service's and a consumer's replaces both. What this module
cannot honour it refuses at start, by name: a limit that is written down and ignored is worse than
none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gateway.credentials import read_document
from gateway.limits.periods import Period
from services.runtime.errors import FailedPrecondition

PLUGIN = "rate-limiting"
JWT = "jwt"
PERIODS = {period.name.lower(): period for period in Period}
MESSAGE = "API rate limit exceeded"

HONOURED = frozenset(PERIODS) | {"limit_by", "hide_client_headers", "error_message"}
"""Fields of the plugin's configuration that shape what happens here."""
KONGS_OWN = frozenset({"policy", "redis", "sync_rate"})
"""Where Kong counts. The gateway counts in Redis when it has one, else in its process."""
FIXED = {"fault_tolerant": True, "error_code": 429, "header_name": None, "path": None}
"""Fields that must have the value that holds here anyway."""
LIMIT_BY = ("consumer", "ip", "service")

# How specific a plugin is, as Kong orders it: (consumer, route, service) that it names.
_PRECEDENCE = (
    (True, True, True),
    (True, True, False),
    (True, False, True),
    (False, True, True),
    (True, False, False),
    (False, True, False),
    (False, False, True),
    (False, False, False),
)
_PLUGIN_FIELDS = frozenset(
    {"name", "config", "enabled", "protocols", "tags", "instance_name", "id"}
    | {"consumer", "route", "service"}
)
_ROUTE_FIELDS_UNREAD = ("hosts", "headers", "snis", "sources", "destinations", "expression")
_WEB = frozenset({"http", "https"})
_GRPC = frozenset({"grpc", "grpcs"})


@dataclass(frozen=True, slots=True)
class RatePlugin:
    """One rate-limiting plugin: what it limits, and for whom."""

    limits: tuple[tuple[Period, int], ...]
    limit_by: str
    shown: bool
    """Whether its numbers are told in headers."""
    message: str
    consumer: str | None
    route: str | None
    service: str | None
    protocols: frozenset[str]

    @property
    def rank(self) -> int:
        consumer, route, service = self.place
        return _PRECEDENCE.index((consumer is not None, route is not None, service is not None))

    @property
    def place(self) -> tuple[str | None, str | None, str | None]:
        return (self.consumer, self.route, self.service)

    @property
    def scope(self) -> str:
        """Part of the counters' keys: plugins of one place share counters, whoever the consumer."""
        return f"{self.route or '-'}:{self.service or '-'}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of Kong, as far as finding it goes."""

    name: str
    service: str
    protocols: frozenset[str]
    methods: frozenset[str]
    needs_token: bool
    """Whether a jwt plugin stands before it: without a token it is refused before limits count."""
    prefixes: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    regex_priority: int

    def match(self, protocols: frozenset[str], method: str, path: str) -> tuple[int, ...] | None:
        """How well a request fits, for comparison; None when it does not."""
        if not protocols & self.protocols or (self.methods and method not in self.methods):
            return None
        fields = bool(self.methods) + bool(self.prefixes or self.patterns)
        if any(pattern.match(path) for pattern in self.patterns):
            return (fields, 1, self.regex_priority, 0)
        lengths = [len(prefix) for prefix in self.prefixes if path.startswith(prefix)]
        if lengths:
            return (fields, 0, 0, max(lengths))
        if not self.prefixes and not self.patterns:
            return (fields, 0, 0, 0)
        return None


class Edge:
    """Routes and rate-limiting plugins of one file."""

    def __init__(self, routes: Sequence[Route], plugins: Sequence[RatePlugin]) -> None:
        self._routes = routes
        self._plugins = sorted(plugins, key=lambda plugin: plugin.rank)
        self._chosen: dict[tuple[str, str | None, bool], RatePlugin | None] = {}

    def route(self, method: str, path: str, *, grpc: bool = False) -> Route | None:
        """The route that Kong would take: most fields, then a pattern, then the longest prefix."""
        protocols = _GRPC if grpc else _WEB
        best: tuple[int, ...] = ()
        chosen = None
        for route in self._routes:
            fit = route.match(protocols, method, path)
            if fit is not None and fit > best:
                best, chosen = fit, route
        return chosen

    def plugin(
        self, route: Route, consumer: str | None, *, grpc: bool = False
    ) -> RatePlugin | None:
        """The one plugin that binds a consumer on a route, or nobody in particular."""
        key = (route.name, consumer, grpc)
        if key not in self._chosen:
            if len(self._chosen) > 10_000:
                self._chosen.clear()
            self._chosen[key] = self._choose(route, consumer, _GRPC if grpc else _WEB)
        return self._chosen[key]

    def _choose(
        self, route: Route, consumer: str | None, protocols: frozenset[str]
    ) -> RatePlugin | None:
        for plugin in self._plugins:  # most specific first
            if (
                plugin.consumer in (None, consumer)
                and plugin.route in (None, route.name)
                and plugin.service in (None, route.service)
                and protocols & plugin.protocols
            ):
                return plugin
        return None


def read_edge(path: Path) -> Edge:
    """The limits of a rendered file.

    Raises:
        FailedPrecondition: CREDENTIALS_UNREADABLE; EDGE_UNSUPPORTED, naming what is written there
            and cannot be honoured without Kong.
    """
    document = read_document(path)
    try:
        return parse_edge(document)
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise FailedPrecondition(
            "EDGE_UNSUPPORTED", f"The limits in {path} cannot be enforced: {error}."
        ) from error


def parse_edge(document: Mapping[str, Any]) -> Edge:
    """Raises ValueError, KeyError, TypeError: what is written there and cannot be honoured."""
    placed = list(placed_plugins(document))
    guards = [
        (place.get("route"), place.get("service"))
        for entry, place in placed
        if entry["name"] == JWT
    ]
    routes = []
    for service in document.get("services") or ():
        for route in service.get("routes") or ():
            routes.append(_route(route, str(service["name"]), guards))
    for route in document.get("routes") or ():
        routes.append(_route(route, str(_reference(route.get("service")) or ""), guards))
    plugins: list[RatePlugin] = []
    for entry, place in placed:
        if entry["name"] == PLUGIN:
            plugin = _plugin(entry, place)
            if any(plugin.place == other.place for other in plugins):
                raise ValueError(f"{PLUGIN} stands twice in one place: {plugin.place}")
            plugins.append(plugin)
    return Edge(routes, plugins)


def placed_plugins(
    document: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
    """Every plugin that is on, with the route, service and consumer that it is bound to."""
    holders: list[tuple[Mapping[str, Any], dict[str, str]]] = [(document, {})]
    for service in document.get("services") or ():
        holders.append((service, {"service": str(service["name"])}))
        for route in service.get("routes") or ():
            holders.append((route, {"route": str(route["name"])}))
    for route in document.get("routes") or ():
        holders.append((route, {"route": str(route["name"])}))
    for consumer in document.get("consumers") or ():
        holders.append((consumer, {"consumer": str(consumer["username"])}))
    for holder, place in holders:
        for entry in holder.get("plugins") or ():
            if entry.get("enabled") is False:
                continue
            named = {kind: _reference(entry.get(kind)) for kind in _HOLDERS}
            yield entry, {kind: name for kind, name in named.items() if name is not None} | place


def _plugin(entry: Mapping[str, Any], place: Mapping[str, str]) -> RatePlugin:
    for name in entry.keys() - _PLUGIN_FIELDS:
        _unsupported(f"its field {name}")
    config = entry.get("config") or {}
    for name, value in config.items():
        if name in FIXED:
            if value != FIXED[name]:
                _unsupported(f"{name}: {value}")
        elif name not in HONOURED and name not in KONGS_OWN:
            _unsupported(name)
    limit_by = config.get("limit_by") or "consumer"
    if limit_by not in LIMIT_BY:
        _unsupported(f"limit_by: {limit_by} (known are {', '.join(LIMIT_BY)})")
    limits = []
    for name, period in PERIODS.items():
        limit = config.get(name)
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            _unsupported(f"{name}: {limit}")
        limits.append((period, limit))
    if not limits:
        raise ValueError(f"a {PLUGIN} plugin names no limit")
    return RatePlugin(
        tuple(limits),
        limit_by,
        not config.get("hide_client_headers", False),
        str(config.get("error_message") or MESSAGE),
        place.get("consumer"),
        place.get("route"),
        place.get("service"),
        frozenset(entry.get("protocols") or _WEB | _GRPC),
    )


_HOLDERS = ("consumer", "route", "service")


def _reference(value: Any) -> str | None:
    """The name in a reference: a bare name, or a mapping with one."""
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("username") or value["id"]
    return None if value is None else str(value)


def _route(
    entry: Mapping[str, Any], service: str, guards: Sequence[tuple[str | None, str | None]]
) -> Route:
    name = str(entry["name"])
    for field in _ROUTE_FIELDS_UNREAD:
        if entry.get(field):
            raise ValueError(f"the route {name} is found by {field}, which only Kong does")
    paths = [str(path) for path in entry.get("paths") or ()]
    return Route(
        name,
        service,
        frozenset(entry.get("protocols") or _WEB),
        frozenset(entry.get("methods") or ()),
        any(route in (None, name) and where in (None, service) for route, where in guards),
        tuple(path for path in paths if not path.startswith("~")),
        tuple(re.compile(path[1:]) for path in paths if path.startswith("~")),
        int(entry.get("regex_priority") or 0),
    )


def _unsupported(what: str) -> NoReturn:
    raise ValueError(f"{PLUGIN} with {what} is not enforced without Kong")
