"""A tenant's end: everything goes, and is counted afterwards."""

from datetime import UTC, datetime

from gateway.credentials import Consumer
from tests.gateway.conftest import running, token

ADMIN = {"authorization": f"Bearer {token(scope='models:admin', tenant='ops', subject='root')}"}
NOTHING = dict.fromkeys(
    ("collections", "documents", "chunks", "folders", "sessions", "turns", "usage"), 0
)
QUERY = {"query": "Is tea hot?", "collection": "docs", "session_id": "s"}


async def fill(gateway, tenant: str) -> None:
    headers = {"authorization": f"Bearer {token(tenant=tenant)}"}
    client = gateway.client
    await client.post("/v1/collections", json={"name": "docs"}, headers=headers)
    document = {"id": "a", "text": "Tea is hot.\n\nIce is cold.", "access": ["user:alice"]}
    made = await client.post(
        "/v1/collections/docs/documents", json={"documents": [document]}, headers=headers
    )
    assert made.status_code == 201, made.text
    for _ in range(2):
        assert (await client.post("/v1/query", json=QUERY, headers=headers)).status_code == 200
    await gateway.state.usage.flush()


async def test_everything_goes_and_nothing_of_others(gateway):
    for tenant in ("acme", "other"):
        await fill(gateway, tenant)
    full = {
        "collections": 1, "documents": 1, "chunks": 2, "folders": 2, "sessions": 1, "turns": 2,
        "usage": 1,
    }  # fmt: skip
    shown = (await gateway.client.get("/v1/admin/tenants/acme", headers=ADMIN)).json()
    assert shown == {"tenant": "acme", "consumer": "embedded", "contents": full}
    # Counted, and not written yet.
    headers = {"authorization": f"Bearer {token(tenant='acme')}"}
    await gateway.client.post("/v1/query", json={**QUERY, "session_id": None}, headers=headers)
    done = (await gateway.client.delete("/v1/admin/tenants/acme", headers=ADMIN)).json()
    assert done == {
        "tenant": "acme",
        "consumer": "embedded",
        "removed": full,
        "left": NOTHING,
        "complete": True,
    }
    assert (await gateway.client.get("/v1/collections")).json()["collections"] == []
    assert (await gateway.client.get("/v1/sessions/s")).status_code == 404
    assert (await gateway.client.get("/v1/usage")).json()["usage"] == []
    other = (await gateway.client.get("/v1/admin/tenants/other", headers=ADMIN)).json()
    assert other["contents"] == full
    again = (await gateway.client.delete("/v1/admin/tenants/acme", headers=ADMIN)).json()
    assert (again["removed"], again["complete"]) == (NOTHING, True)
    log = await gateway.state.audit.read(action="tenant.delete")
    assert [(each.event.subject, each.event.target) for each in log] == [
        ("root", "embedded/acme"),
        ("root", "embedded/acme"),
    ]


async def test_a_name_may_hold_a_slash(gateway):
    path = "/v1/admin/tenants/a/b c"
    assert (await gateway.client.get(path, headers=ADMIN)).json()["tenant"] == "a/b c"


async def test_consumers_bound_what_their_administrators_may_do(tmp_path, monkeypatch):
    """A consumer without the operator's tag sees its own; without tenant:* its tenant alone."""

    def consumer(**more):
        made = Consumer("embedded", frozenset({"acme", "ops"}), frozenset({"models:admin"}), **more)
        return lambda *_, **__: made

    for trusted in (False, True):
        monkeypatch.setattr("gateway.auth.Consumer", consumer(any_tenant=trusted))
        folder = tmp_path / str(trusted)
        folder.mkdir()
        async with running(folder) as gateway:
            call = gateway.client
            own = await call.get("/v1/admin/tenants/acme", headers=ADMIN)
            assert own.status_code == (200 if trusted else 403)
            foreign = {"consumer": "else"}
            for method in ("GET", "DELETE"):
                refused = await call.request(
                    method, "/v1/admin/tenants/acme", headers=ADMIN, params=foreign
                )
                assert refused.status_code == 403
                assert refused.json()["error"]["code"] == "tenant_not_allowed"
            log = (await call.get("/v1/admin/audit", headers=ADMIN)).json()["entries"]
            assert [each["outcome"] for each in log] == ["tenant_not_allowed"]
            assert log[0]["at"].startswith(datetime.now(UTC).date().isoformat())
