"""Which peers count as this machine."""

import pytest

from services.runtime.peers import is_local


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:127.0.0.1:4000",
        "ipv4:127.8.9.1:4000",
        "ipv6:%5B::1%5D:4000",
        "ipv6:[::1]:4000",
        "ipv6:%5B::ffff:127.0.0.1%5D:4000",
        "unix:/run/ragmesh.sock",
        "unix:",
        "unix-abstract:x",
    ],
)
def test_local(peer: str) -> None:
    assert is_local(peer)


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:10.0.0.7:4000",
        "ipv6:%5Bfe80::1%5D:4000",
        "ipv6:%5B::ffff:10.0.0.7%5D:1",
        "vsock:2:3",
        "",
    ],
)
def test_not_local(peer: str) -> None:
    assert not is_local(peer)
