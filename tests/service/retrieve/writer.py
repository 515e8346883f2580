"""A process that writes documents without end and says which were acknowledged.

``python -m tests.service.retrieve.writer FOLDER [STORE [MERGE_POINTS]]``: prints the process id of
the engine, or its own where there is none, then one line ``<document id> <revision>`` per
acknowledged document.
"""

import asyncio
import os
import random
import sys
from contextlib import suppress
from pathlib import Path

from services.retrieve.adapters.edge.client import EdgeStore
from services.retrieve.ports import Store
from services.runtime.errors import AlreadyExists
from tests.contract.retrieve.stores import KEY, collection, document, make_store, put

DOCUMENTS = 6


async def write(store: Store, seed: int, revisions: dict[str, int]) -> None:
    """Replace documents at random, recording in `revisions` what was acknowledged."""
    rng = random.Random(seed)
    while True:
        ids = rng.sample([f"d{n}" for n in range(DOCUMENTS)], rng.randint(1, 3))
        attempts = {one: revisions.get(one, 0) + 1 for one in ids}
        await put(
            store,
            *(
                document(one, str(number), chunks=1 + number % 7)
                for one, number in attempts.items()
            ),
        )
        for one, number in attempts.items():
            revisions[one] = number
            print(one, number, flush=True)


async def main(folder: str, place: str = "edge", merge_points: str = "") -> None:
    options = {"merge_points": int(merge_points)} if merge_points else {}
    store = make_store(place, Path(folder), **options)
    await store.start()
    print(store.process_id if isinstance(store, EdgeStore) else os.getpid(), flush=True)
    with suppress(AlreadyExists):  # in a later round
        await store.create_collection(collection(), 10)
    stored = await store.list_documents(KEY, "", 1000)
    revisions = {one.id: int(one.content_hash.split("-")[1]) for one in stored}
    await write(store, random.randrange(1 << 30), revisions)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
