"""``kill -9`` of any process while documents come in over REST.

No acknowledged document is lost, none is seen in part, none twice; one that was being replaced is
the old or the new one. `make test` runs a round for each target, ``make soak`` two hundred.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import httpx
import psutil
import pytest

from bench.mesh import IngestMesh
from bench.word_vectors import NAME
from tests.soak.ledger import Ledger, Seen, marks, text_of

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "4"))  # noqa: TID251 - `make soak` sets it
SEED = int(os.environ.get("SOAK_SEED", "20261125"))  # noqa: TID251
TARGETS = ("retrieve", "engine", "preprocess", "gateway")
WRITERS = 2
DOCUMENTS = 5
"""Of each writer."""
MAX_PARTS = 7
COLLECTION = "soak"
DELETES = 0.1
SEARCH_SECONDS = 30.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 30 * ROUNDS)]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestMesh]:
    running = IngestMesh(
        tmp_path_factory.mktemp("soak") / "var",
        retrieve="bench.service",
        embedding_backend=NAME,
        embedding_model="1,6400,64",
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()


async def test_what_was_acknowledged_survives(mesh: IngestMesh) -> None:
    dice = random.Random(SEED)
    ledger = Ledger()
    targets: list[str] = []
    async with mesh.client() as client:
        body = {"name": COLLECTION, "chunk_tokens": 16, "chunk_overlap": 0}
        assert (await client.post("/v1/collections", json=body)).status_code == 201
    try:
        for _ in range(ROUNDS):
            # Every target comes as often as the others, in an order that is not told beforehand.
            if not targets:
                targets = dice.sample(TARGETS, len(TARGETS))
            await one_round(mesh, ledger, targets.pop(), dice)
            assert not ledger.problems, (ledger.problems, f"seed {SEED}")
        assert ledger.acknowledged > ROUNDS, "hardly anything was written"
    finally:
        print(f"\nsoak: {ledger} (seed {SEED})")


async def one_round(mesh: IngestMesh, ledger: Ledger, target: str, dice: random.Random) -> None:
    """Write, kill, start again, look."""
    ledger.rounds += 1
    ending = asyncio.Event()
    seeds = [dice.random() for _ in range(WRITERS)]
    writing = [
        asyncio.create_task(write(mesh, ledger, number, ending, random.Random(seed)))
        for number, seed in enumerate(seeds)
    ]
    try:
        await asyncio.sleep(dice.uniform(0.02, 0.8))
        kill(mesh, target, dice)
        ledger.kills[target] += 1
        await asyncio.sleep(dice.uniform(0.0, 0.2))
    finally:
        ending.set()
        await asyncio.gather(*writing)
    if target != "engine":
        mesh.launch(target)
    await asyncio.to_thread(mesh.wait)
    ledger.judge(await views(mesh))


def kill(mesh: IngestMesh, target: str, dice: random.Random) -> None:
    """``kill -9`` a service, or one of the processes that retrieve has started."""
    if target != "engine":
        mesh.kill(target)
        return
    engines = mesh.descendants("retrieve")
    assert engines, "retrieve has no engine"
    with suppress(psutil.NoSuchProcess):
        dice.choice(engines).send_signal(signal.SIGKILL)


async def write(
    mesh: IngestMesh, ledger: Ledger, writer: int, ending: asyncio.Event, dice: random.Random
) -> None:
    """Replace and delete documents until told to end; whatever fails may have happened or not."""
    mine = [f"d{writer}x{number}" for number in range(DOCUMENTS)]
    async with mesh.client() as client:
        while not ending.is_set():
            try:
                if dice.random() < DELETES:
                    await delete(client, ledger, dice.choice(mine))
                else:
                    await replace(client, ledger, dice.sample(mine, dice.randint(1, 3)), dice)
            except httpx.TransportError:
                await asyncio.sleep(0.02)


async def replace(
    client: httpx.AsyncClient, ledger: Ledger, chosen: list[str], dice: random.Random
) -> None:
    sizes = {one: dice.randint(1, MAX_PARTS) for one in chosen}
    numbers = {one: ledger.attempt(one, parts) for one, parts in sizes.items()}
    documents = [
        {"id": one, "text": text_of(one, number, sizes[one])} for one, number in numbers.items()
    ]
    path = f"/v1/collections/{COLLECTION}/documents"
    answer = await client.post(path, json={"documents": documents})
    if answer.status_code == 201:
        for one, number in numbers.items():
            ledger.acknowledge(one, number)
    else:
        assert answer.status_code in (500, 503), answer.text
        await asyncio.sleep(0.02)


async def delete(client: httpx.AsyncClient, ledger: Ledger, document: str) -> None:
    number = ledger.attempt(document, 0)
    answer = await client.delete(f"/v1/collections/{COLLECTION}/documents/{document}")
    # Not found counts as well: it is not there.
    if answer.status_code in (200, 404):
        ledger.acknowledge(document, number)
    else:
        assert answer.status_code in (500, 503), answer.text


async def views(mesh: IngestMesh) -> dict[str, list[Seen]]:
    """The documents as search finds them and as they are listed; the counts must agree."""
    async with mesh.client() as client:
        body = {
            "query": "soakword",
            "collection": COLLECTION,
            "mode": "sparse",
            "top_k": WRITERS * DOCUMENTS * MAX_PARTS + 10,
        }
        found = await answered(client, "POST", "/v1/search", body)
        listed: list[str] = []
        documents = 0
        path = f"/v1/collections/{COLLECTION}/documents"
        async for one in pages(client, path, "documents"):
            chunks = [c async for c in pages(client, f"{path}/{one['id']}/chunks", "chunks")]
            assert len(chunks) == one["chunks"], one
            listed += [chunk["text"] for chunk in chunks]
            documents += 1
        collection = await answered(client, "GET", f"/v1/collections/{COLLECTION}")
        assert (collection["documents"], collection["chunks"]) == (documents, len(listed))
        return {"search": marks(hit["text"] for hit in found["hits"]), "list": marks(listed)}


async def pages(client: httpx.AsyncClient, path: str, name: str) -> AsyncIterator[dict]:
    after = ""
    while True:
        answer = await answered(client, "GET", f"{path}?limit=100{after}")
        for one in answer[name]:
            yield one
        if not answer["next"]:
            return
        after = f"&after={answer['next']}"


async def answered(client: httpx.AsyncClient, method: str, path: str, body=None) -> dict:
    """An answer; a service that has just come back may still be missed for a moment."""
    async with asyncio.timeout(SEARCH_SECONDS):
        while True:
            answer = await client.request(method, path, json=body)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.1)
    assert answer.is_success, answer.text
    return answer.json()
