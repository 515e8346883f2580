"""The ports a mesh needs, and whether they are free."""

import socket
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import psutil

from cli.console import Failure
from cli.settings import SERVICES, CommandSettings

EXIT_PORT_TAKEN = 4


class Address(NamedTuple):
    """A port that a process of the mesh will bind."""

    what: str
    host: str
    port: int
    variable: str
    """The variable that moves it."""


def addresses(settings: CommandSettings) -> Iterator[Address]:
    """Every port of the mesh that these settings describe."""
    if settings.port:
        yield Address("gateway (REST)", settings.rest_host, settings.port, "RAGMESH_PORT")
    for name in ("gateway", *SERVICES):
        port = settings.grpc_port_of(name)
        yield Address(f"{name} (gRPC)", settings.host, port, "RAGMESH_GRPC_BASE")
        metrics = settings.metrics_port_of(name)
        if metrics:
            yield Address(f"{name} (metrics)", settings.host, metrics, "RAGMESH_METRICS_BASE")


def check_addresses(settings: CommandSettings) -> None:
    """Raises Failure, naming each port that is taken and the variable that moves it."""
    # One line a variable: a second mesh on the same ports would otherwise fill the screen.
    first: dict[str, str] = {}
    more: Counter[str] = Counter()
    for address, problem in taken_addresses(settings):
        if first.setdefault(address.variable, problem) is not problem:
            more[address.variable] += 1
    if first:
        lines = [
            f"{problem} ({more[name]} more of that range are taken.)" if more[name] else problem
            for name, problem in first.items()
        ]
        raise Failure("\n".join(lines), status=EXIT_PORT_TAKEN, code="port_taken")


def taken_addresses(settings: CommandSettings) -> Iterator[tuple[Address, str]]:
    """The addresses that cannot be bound, each with a sentence for people."""
    seen: dict[int, Address] = {}
    for address in addresses(settings):
        other = seen.setdefault(address.port, address)
        if other is not address:
            yield (
                address,
                f"Port {address.port} is wanted by both {other.what} and {address.what}: move "
                f"{other.variable} or {address.variable}.",
            )
        elif not _is_free(address):
            yield (
                address,
                f"Port {address.port} for {address.what} is taken{_owner(address.port)}: set "
                f"{address.variable} to another one.",
            )


def _is_free(address: Address) -> bool:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: a port in TIME_WAIT is free. Never SO_REUSEPORT: gRPC's default would
        # share the port with a stranger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    """`` by pid 12 (name)`` where the system tells, else nothing."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""
