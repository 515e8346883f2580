"""Word indexes beside shards: which of them are open."""

from collections.abc import Callable
from typing import Any

import pytest

from services.retrieve.adapters.points import Allowed, point_id
from services.retrieve.adapters.whoosh.shards import WhooshShards
from services.retrieve.ports import WordQuery
from tests.contract.retrieve.stores import WORD, chunks_of, collection, document

FACTS = collection()


class WaitingShards:
    """Shards whose writes wait for the disk, in which time others are served."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None

    def open(self, folder: str, facts: Any, *, expect_data: bool) -> "WaitingShards":
        return self

    def _wait(self, *_: Any) -> None:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()

    upsert = delete = flush = _wait

    def close_idle(self, seconds: float) -> None:
        pass

    def close_all(self) -> None:
        pass


@pytest.mark.parametrize("during", ["upsert", "flush", "delete"])
@pytest.mark.parametrize("idle", [False, True])
def test_an_index_in_use_stays_open_while_others_are_opened(
    tmp_path: Any, during: str, idle: bool
) -> None:
    shards = WaitingShards()
    indexes = WhooshShards(shards, tmp_path, 1)  # type: ignore[arg-type]
    one = document("one", chunks=1)
    given = [(1, one, chunk) for chunk in chunks_of("t", one)]
    shard = indexes.open("a/1", FACTS, expect_data=False)

    def others() -> None:
        if idle:
            indexes.close_idle(-1.0)
        else:
            indexes.open("a/2", FACTS, expect_data=False)

    def found() -> int:
        asked = WordQuery(((WORD, 1.0),))
        return len(shard.matching(asked, 10, Allowed()))

    if during != "upsert":
        shard.upsert(given)
        shard.flush()
    shards.meanwhile = others
    if during == "upsert":
        shard.upsert(given)
    elif during == "flush":
        shard.flush()
    else:
        shard.delete(_points(given))
    assert "a/1" in indexes._open
    shard.flush()
    assert found() == (during != "delete")
    indexes.open("a/3", FACTS, expect_data=False)
    assert list(indexes._open) == ["a/3"], "once nothing uses them they go"
    indexes.close_all()


def _points(given: Any) -> list[int]:
    return [point_id(version, one.chunk.index) for version, _, one in given]
