"""A revoked token is refused on every replica within a second, and forgotten once expired."""

import asyncio
import time

import pytest
from sqlalchemy import URL

from gateway.revocations import Revocations
from gateway.store.database import open_database
from gateway.store.revocations import RevocationStore
from services.runtime.errors import Unauthenticated
from tests.unit.gateway_auth.conftest import NOW


def refused(gate, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        gate.authenticate(f"Bearer {token}")
    return caught.value.reason


@pytest.fixture
async def engines(tmp_path):
    """Two replicas of one database."""
    url = URL.create("sqlite+aiosqlite", database=str(tmp_path / "gateway.db"))
    opened = [await open_database(url) for _ in range(2)]
    yield opened
    for engine in opened:
        await engine.dispose()


async def test_every_replica_refuses_within_a_second(engines, door):
    followers = [Revocations(RevocationStore(engine)) for engine in engines]
    gates = [door.authenticator(revocations=each) for each in followers]
    bad, good = door.token(jti="stolen"), door.token(jti="mine")
    for follower, gate in zip(followers, gates, strict=True):
        await follower.start()
        gate.authenticate(f"Bearer {bad}")
    store = RevocationStore(engines[0])
    expiry = time.time() + 600
    assert await store.add("local", "stolen", expires_at=expiry, now=time.time())
    assert not await store.add("local", "stolen", expires_at=expiry, now=time.time())
    await asyncio.sleep(0.9)
    for gate in gates:
        assert refused(gate, bad) == "TOKEN_REVOKED"
        assert refused(gate, bad) == "TOKEN_REVOKED", "not remembered as good either"
        gate.authenticate(f"Bearer {good}")
        assert len(gate._cache) == 1
    for follower in followers:
        await follower.aclose()


async def test_a_jti_is_its_consumers_own(engines, door):
    store = RevocationStore(engines[0])
    follower = Revocations(store)
    gate = door.authenticator(revocations=follower)
    await store.add("another", "t1", expires_at=NOW, now=NOW)
    await follower.refresh()
    gate.authenticate(f"Bearer {door.token(jti='t1')}")


async def test_revocations_go_when_their_tokens_have_expired(engines):
    store = RevocationStore(engines[0])
    clock = [NOW]
    follower = Revocations(store, now=lambda: clock[0])
    await store.add("local", "old", expires_at=NOW + 60, now=NOW)
    await follower.refresh()
    assert ("local", "old") in follower
    clock[0] += 4000
    await store.add("local", "new", expires_at=NOW + 9000, now=clock[0])
    await follower.refresh()
    assert ("local", "old") not in follower
    assert ("local", "new") in follower
    assert await store.read() == {("local", "new")}


async def test_a_number_that_is_used_again_is_news(engines):
    store = RevocationStore(engines[0])
    follower = Revocations(store, now=lambda: NOW)
    await store.add("local", "old", expires_at=NOW - 5000, now=NOW - 6000)
    follower._purge_at = NOW + 1
    await follower.refresh()
    assert ("local", "old") in follower
    await store.purge(NOW)
    await store.add("local", "new", expires_at=NOW + 60, now=NOW)
    await follower.refresh()
    assert ("local", "new") in follower
