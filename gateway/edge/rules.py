"""The rules of the rendered file that bind a request before a route sees it: which route Kong
would take, whether it asks for a token, who may come from where, how large a body may be, and
what web pages are told."""

import ipaddress
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.credentials import read_document
from gateway.edge.fields import unenforced
from gateway.limits.edge import Edge, Route, parse_edge, placed_plugins
from services.runtime.errors import FailedPrecondition, RagmeshError

log = logging.getLogger(__name__)

UNITS = {"bytes": 1, "kilobytes": 2**10, "megabytes": 2**20}
DEFAULT_METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"
_PLAIN_ORIGIN = re.compile(r"[A-Za-z0-9.:/-]+")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Cors:
    """What Kong's cors plugin tells web pages."""

    origins: tuple[str, ...] = ("*",)
    methods: str = DEFAULT_METHODS
    headers: str | None = None
    """None: whatever the page asks for."""
    exposed: str | None = None
    max_age: int | None = None

    def preflight(self, origin: str, asked: str | None) -> Headers:
        """Headers of the answer to a preflight."""
        told = self._origin(origin)
        allowed = self.headers if self.headers is not None else asked
        if allowed:
            told.append((b"access-control-allow-headers", allowed.encode("latin-1")))
        told.append((b"access-control-allow-methods", self.methods.encode()))
        if self.max_age is not None:
            told.append((b"access-control-max-age", str(self.max_age).encode()))
        return told

    def answer(self, origin: str | None) -> Headers:
        """Headers of every other answer."""
        told = self._origin(origin)
        if self.exposed:
            told.append((b"access-control-expose-headers", self.exposed.encode()))
        return told

    def _origin(self, origin: str | None) -> Headers:
        if self.origins in ((), ("*",)):
            return [(b"access-control-allow-origin", b"*")]
        allowed = self._allowed(origin)
        told: Headers = [(b"vary", b"Origin")]
        if allowed is not None:
            told.insert(0, (b"access-control-allow-origin", allowed.encode("latin-1")))
        return told

    def _allowed(self, origin: str | None) -> str | None:
        if len(self.origins) == 1 and _PLAIN_ORIGIN.fullmatch(self.origins[0]):
            return self.origins[0]
        if origin is None:
            return None
        domain, host = _normal(origin)
        for entry in self.origins:
            if entry == "*":
                return "*"
            if _PLAIN_ORIGIN.fullmatch(entry):
                if _normal(entry)[0] == domain:
                    return domain
            else:
                pattern = entry.removeprefix("^").removesuffix("$")
                if re.fullmatch(pattern, domain if ":" in entry else host):
                    return domain
        return None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Who may come from where, as the ip-restriction plugin says."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...]

    def admits(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if any(found in network for network in self.deny):
            return False
        return not self.allow or any(found in network for network in self.allow)


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """The largest body, as the request-size-limiting plugin says."""

    bytes: int
    needs_length: bool


@dataclass(frozen=True, slots=True)
class Bindings:
    """What binds the requests of one route."""

    cors: Cors | None
    addresses: Addresses | None
    size: SizeLimit | None


class Rules:
    """One reading of the file."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises ValueError, KeyError, TypeError: what is there and cannot be honoured."""
        missing = unenforced(document)
        if missing:
            raise ValueError(f"{'; '.join(missing)} would be ignored without Kong")
        self._edge: Edge = parse_edge(document)
        self._placed = [
            (str(entry["name"]), place, _parsed(entry)) for entry, place in placed_plugins(document)
        ]
        self.has_routes = any(service.get("routes") for service in document.get("services") or ())
        self._bound: dict[str | None, Bindings] = {}

    def route(self, method: str, path: str) -> Route | None:
        return self._edge.route(method, path)

    def bindings(self, route: Route | None) -> Bindings:
        """The plugins of a route; without one those that stand for everything."""
        name = route.name if route else None
        if name not in self._bound:
            self._bound[name] = Bindings(
                cors=self._chosen("cors", route),
                addresses=self._chosen("ip-restriction", route),
                size=self._chosen("request-size-limiting", route),
            )
        return self._bound[name]

    def _chosen(self, plugin: str, route: Route | None) -> Any:
        """Of the plugins of a name that apply the most specific: route, service, everything."""
        best, chosen = -1, None
        for name, place, parsed in self._placed:
            if name != plugin:
                continue
            wanted = {"route": route.name, "service": route.service} if route else {}
            if any(wanted.get(kind) != value for kind, value in place.items()):
                continue
            rank = 2 * ("route" in place) + ("service" in place)
            if rank > best:
                best, chosen = rank, parsed
        return chosen


class EdgeRules:
    """The rules of a file, which are followed when it changes."""

    def __init__(
        self,
        path: Path,
        *,
        check_interval: float = 0.5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises FailedPrecondition CREDENTIALS_UNREADABLE, EDGE_UNSUPPORTED."""
        self._path = path
        self._check_interval = check_interval
        self._monotonic = monotonic
        self._seen = _stamp(path)
        self._rules = read_rules(path)
        self._next_check = monotonic() + check_interval

    @property
    def current(self) -> Rules:
        """The rules as the file says now; those known so far while it cannot be read."""
        if self._monotonic() < self._next_check:
            return self._rules
        self._next_check = self._monotonic() + self._check_interval
        stamp = _stamp(self._path)
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._rules = read_rules(self._path)
            except RagmeshError as error:
                log.error("the edge's rules are not reloaded: %s", error.message)
        return self._rules


def read_rules(path: Path) -> Rules:
    """Raises FailedPrecondition CREDENTIALS_UNREADABLE, EDGE_UNSUPPORTED."""
    document = read_document(path)
    try:
        return Rules(document)
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise FailedPrecondition(
            "EDGE_UNSUPPORTED", f"The edge of {path} cannot be enforced: {error}."
        ) from error


def _parsed(entry: Mapping[str, Any]) -> Any:
    config = entry.get("config") or {}
    match entry["name"]:
        case "cors":
            return _cors(config)
        case "ip-restriction":
            return Addresses(_networks(config.get("allow")), _networks(config.get("deny")))
        case "request-size-limiting":
            return SizeLimit(
                int(config.get("allowed_payload_size") or 128)
                * UNITS[config.get("size_unit") or "megabytes"],
                bool(config.get("require_content_length", False)),
            )
        case _:
            return None


def _cors(config: Mapping[str, Any]) -> Cors:
    def joined(field: str) -> str | None:
        values = config.get(field)
        return ",".join(str(value) for value in values) if values else None

    max_age = config.get("max_age")
    return Cors(
        origins=tuple(str(origin) for origin in config.get("origins") or ("*",)),
        methods=joined("methods") or DEFAULT_METHODS,
        headers=joined("headers"),
        exposed=joined("exposed_headers"),
        max_age=None if max_age is None else int(max_age),
    )


def _networks(entries: Sequence[Any] | None) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(str(entry), strict=False) for entry in entries or ())


def _normal(origin: str) -> tuple[str, str]:
    """Scheme, host and a port that is not the scheme's own; and the host."""
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return origin, origin
    if not host:
        return origin, origin
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    shown = f":{port}" if port is not None and port != usual else ""
    return f"{parts.scheme}://{host}{shown}", host


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
