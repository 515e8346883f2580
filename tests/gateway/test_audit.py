"""The audit log: what is recorded, who sees it, and that tampering shows."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.routes.admin import time_of
from gateway.store.audit import GENESIS, AuditStore, Event, hash_of, moment
from gateway.store.database import open_database
from ragmesh.gateway.v1 import gateway_pb2
from services.runtime.errors import InvalidArgument, Unavailable
from tests.gateway.conftest import token

PATH = "/v1/collections/docs/documents"
ADMIN = {"authorization": f"Bearer {token(scope='models:admin', tenant='ops', subject='root')}"}


def event(action: str = "key.create", target: str = "k", **more) -> Event:
    made = Event(moment(), "", "", "operator", "me@host", "", "", action, target, "ok")
    return replace(made, **more)


async def entries(gateway, headers=ADMIN, **params):
    response = await gateway.client.get("/v1/admin/audit", headers=headers, params=params)
    assert response.status_code == 200, response.text
    return response.json()["entries"]


async def test_deeds_are_recorded_over_both_faces(gateway):
    await gateway.collection()
    await gateway.post(PATH, {"documents": [{"id": "a/b", "text": "A"}]})
    caller = {"authorization": f"Bearer {token(jti='j-1')}", "x-request-id": "r-1"}
    await gateway.client.delete(f"{PATH}/a/b", headers=caller)
    await gateway.client.delete(f"{PATH}/a/b", headers=caller)
    metadata = [("authorization", f"Bearer {token(subject='bob')}")]
    await gateway.rag.DeleteCollection(
        gateway_pb2.DeleteCollectionRequest(name="docs"), metadata=metadata
    )
    found = await entries(gateway)
    assert [(each["action"], each["target"], each["outcome"]) for each in found] == [
        ("collection.delete", "docs", "ok"),
        ("document.delete", "docs/a/b", "document_not_found"),
        ("document.delete", "docs/a/b", "ok"),
        ("collection.create", "docs", "ok"),
    ]
    deleted = found[2]
    assert (deleted["consumer"], deleted["tenant"], deleted["subject"]) == (
        "embedded", "acme", "alice",
    )  # fmt: skip
    assert (deleted["token_id"], deleted["request_id"]) == ("j-1", "r-1")
    assert found[0]["subject"] == "bob"
    assert [each["number"] for each in found] == [4, 3, 2, 1]
    assert found[-1]["previous"] == GENESIS
    verified = await gateway.state.audit.verify()
    assert (verified.entries, verified.head, verified.broken_at) == (4, found[0]["hash"], None)


async def test_filters_and_pages(gateway):
    store = gateway.state.audit
    for number in range(5):
        at = moment() if number < 4 else "2020-01-01T00:00:00.000000+00:00"
        action = "key.revoke" if number % 2 else "key.create"
        await store.append(event(action, f"k{number}", at=at))
    seen, after = [], ""
    while True:
        params = {"limit": 2, "after": after}
        page = (await gateway.client.get("/v1/admin/audit", headers=ADMIN, params=params)).json()
        seen += [each["target"] for each in page["entries"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ["k4", "k3", "k2", "k1", "k0"]
    revoked = await entries(gateway, action="key.revoke")
    assert [each["target"] for each in revoked] == ["k3", "k1"]
    old = await entries(gateway, to="2020-01-01T09:00:00+09:00")
    assert [each["target"] for each in old] == ["k4"]
    assert len(await entries(gateway, **{"from": "2020-01-02"})) == 4
    for wrong in ({"action": "x"}, {"from": "x"}, {"to": "9999-99-99"}, {"after": "-1"}):
        refused = await gateway.client.get("/v1/admin/audit", headers=ADMIN, params=wrong)
        assert refused.status_code == 400, wrong


async def test_only_administrators_read_it(gateway):
    assert (await gateway.client.get("/v1/admin/audit")).status_code == 403
    for path in ("/v1/admin/tenants/acme",):
        assert (await gateway.client.get(path)).status_code == 403
        assert (await gateway.client.delete(path)).status_code == 403


async def test_appends_of_several_processes_make_one_chain(tmp_path, gateway):
    engine = await open_database(gateway.state.settings.store_url)
    try:
        stores = [gateway.state.audit, AuditStore(engine)]
        await asyncio.gather(
            *(stores[number % 2].append(event(target=f"k{number}")) for number in range(60))
        )
    finally:
        await engine.dispose()
    verified = await gateway.state.audit.verify()
    assert (verified.entries, verified.broken_at) == (60, None)
    assert len({entry.event.target for entry in await gateway.state.audit.read()}) == 60


async def test_the_store_refuses_to_change_or_delete(gateway):
    await gateway.state.audit.append(event())
    engine = await open_database(gateway.state.settings.store_url)
    try:
        for statement in ("UPDATE audit SET subject = 'x'", "DELETE FROM audit"):
            with pytest.raises(DBAPIError, match="append-only"):
                async with engine.begin() as connection:
                    await connection.execute(text(statement))
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    ("tampering", "broken_at"),
    [
        ("UPDATE audit SET outcome = 'ok' WHERE number = 3", 3),
        ("DELETE FROM audit WHERE number = 3", 4),
        ("DELETE FROM audit WHERE number = 1", 2),
        ("UPDATE audit SET number = 9 WHERE number = 5", 9),
        ("UPDATE audit SET hash = '{forged}' WHERE number = 2", 2),
    ],
)
async def test_tampering_shows(gateway, tampering, broken_at):
    store = gateway.state.audit
    for number in range(5):
        await store.append(event(target=f"k{number}", outcome="denied"))
    engine = await open_database(gateway.state.settings.store_url)
    try:
        async with engine.begin() as connection:
            for trigger in ("audit_no_update", "audit_no_delete"):
                await connection.execute(text(f"DROP TRIGGER {trigger}"))
            forged = hash_of(2, event(), GENESIS)
            await connection.execute(text(tampering.format(forged=forged)))
    finally:
        await engine.dispose()
    assert (await store.verify()).broken_at == broken_at


async def test_a_deed_whose_record_fails_keeps_its_answer(gateway, monkeypatch, caplog):
    async def away(self, event):
        raise Unavailable("STORE_UNAVAILABLE", "The SQL store does not answer.")

    monkeypatch.setattr(AuditStore, "append", away)
    await gateway.collection()
    assert "an action is not in the audit log" in caplog.text


def test_times():
    assert time_of("2026-11-21T09:00:00 09:00", "from") == "2026-11-21T00:00:00.000000+00:00"
    assert time_of("2026-11-21", "from") == "2026-11-21T00:00:00.000000+00:00"
    assert time_of(None, "from") is None
    with pytest.raises(InvalidArgument):
        time_of("0001-01-01T00:00:00+09:00", "from")
