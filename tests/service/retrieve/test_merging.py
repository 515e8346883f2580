"""Collections of several shards: they answer as one would, and merges lose and double nothing."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.retrieve.adapters.catalog import Catalog
from services.retrieve.adapters.edge import layout, merging, shards
from services.retrieve.adapters.edge.files import copy_tree
from services.retrieve.adapters.edge.layout import Layout, Run
from services.retrieve.adapters.edge.merging import Merger, Merging, choose
from services.retrieve.adapters.edge.parts import INDEX_POINTS, INDEXED, Part
from services.retrieve.adapters.edge.shards import Shards
from services.retrieve.adapters.index import Index
from services.retrieve.ports import ArmWeights, EncodedChunk, SparseVector, StoreQuery
from tests.contract.retrieve.stores import (
    DIMENSIONS,
    KEY,
    TERM,
    chunks_of,
    collection,
    document,
    expected,
)
from tests.until import until_sync

ALL = StoreQuery(
    top_k=1000, depth=1000, weights=ArmWeights(0, 1), sparse=SparseVector((TERM,), (1.0,))
)


class Dead(BaseException):
    """Stands for the end of the process at this very moment."""


class Engine:
    """An index with a merger, in this process."""

    def __init__(self, folder: Path, points: int = 10) -> None:
        self.folder = folder
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        self.shards = Shards(folder / "shards", 8)
        self.merger = Merger(Merging(points=points))
        self.shards.attendant = self.merger
        self.index = Index(Catalog(folder / "catalog.sqlite"), self.shards, root=folder)

    def put(self, *documents, vary=None) -> None:
        tokens = [f"t-{one.content_hash}" for one in documents]
        chunks = [
            chunk
            for token, one in zip(tokens, documents, strict=True)
            for chunk in chunks_of(token, one)
        ]
        self.index.stage(
            KEY, list(zip(tokens, documents, strict=True)),
            [vary(chunk) if vary else chunk for chunk in chunks], (),
        )  # fmt: skip
        self.index.publish(KEY, tokens)

    def texts(self) -> list[str]:
        return sorted(hit.chunk.text for hit in self.index.search(KEY, ALL))

    def begin(self) -> None:
        """Begin a merge that is due."""
        self.shard  # noqa: B018  opening it looks
        self.merger.tend()
        assert self.merger.busy

    def finish(self) -> None:
        """Let a merge end."""
        until_sync(self._ended, seconds=60)

    def _ended(self) -> bool:
        self.merger.tend()
        return not self.merger.busy

    def merge(self) -> None:
        self.begin()
        self.finish()

    @property
    def shard(self):
        return self.index._shard(self.index._state(KEY))

    def names(self) -> set[str]:
        """The parts of the collection that are on disk."""
        found = {entry.name for entry in self.shard.path.iterdir() if entry.is_dir()}
        return found - {"segments", "wal"}

    def close(self) -> None:
        self.index.close()


@contextmanager
def opened(folder: Path, points: int = 10) -> Iterator[Engine]:
    engine = Engine(folder, points)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(tmp_path):
    with opened(tmp_path) as one:
        one.index.create_collection(collection(), 10)
        yield one


def run(name: str, points: int, *, merged: bool = True) -> Run:
    return Run(name, points, 0, merged)


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ([], ()),
        ([run("a", 100)], ()),
        ([run("a", 100, merged=False)], ("a",)),
        ([run("a", 300), run("b", 100, merged=False)], ("a", "b")),
        ([run("a", 301), run("b", 100, merged=False)], ("b",)),
        ([run("a", 301), run("b", 100)], ()),
        ([run("a", 900), run("b", 200), run("c", 100, merged=False)], ("a", "b", "c")),
        ([run("a", 901), run("b", 200), run("c", 100, merged=False)], ("b", "c")),
    ],
)
def test_runs_grow_geometrically(runs, chosen):
    assert choose(runs) == chosen


def test_a_collection_that_rests_is_merged_further(engine, monkeypatch):
    monkeypatch.setattr(merging, "REST_POINTS", 4)
    engine.put(*(document(f"a{number}", chunks=8) for number in range(5)))
    engine.merge()
    engine.put(document("b", chunks=5))
    everything = engine.texts()
    engine.merger.tend()
    assert not engine.merger.busy  # it may be written to again at once
    pause = engine.merger.pause
    assert pause is not None
    assert 0 < pause <= merging.REST_SECONDS
    engine.shard.written -= merging.REST_SECONDS
    assert engine.merger.pause == 0
    engine.merger.tend()
    assert engine.merger.busy
    assert engine.merger.pause is None
    engine.finish()
    assert [one.facts.points for one in engine.shard.runs] == [45]
    assert engine.shard.delta.count() == 0
    assert engine.texts() == everything
    assert engine.merger.pause is None


def test_after_a_merge_the_next_one_begins_by_itself(engine):
    engine.put(*(document(f"a{number}", chunks=10) for number in range(4)))
    engine.merge()
    engine.put(document("b", chunks=10))
    engine.merge()
    shard = engine.index._shards._open[engine.index._state(KEY).row.folder]
    assert [one.facts.points for one in shard.runs] == [40, 10]
    shard.written -= merging.REST_SECONDS
    engine.merger.tend()  # nothing was asked meanwhile
    engine.finish()
    assert [one.facts.points for one in shard.runs] == [50]


def test_the_longer_it_rests_the_more_is_merged(engine, monkeypatch):
    monkeypatch.setattr(merging, "REST_POINTS", 4)
    engine.put(*(document(f"a{number}", chunks=20) for number in range(5)))
    engine.merge()
    engine.put(document("b", chunks=5))
    engine.shard.written -= merging.REST_SECONDS
    engine.merger.tend()
    engine.finish()
    assert [one.facts.points for one in engine.shard.runs] == [100, 5]  # indexed now, but alone
    pause = engine.merger.pause
    assert pause is not None
    assert 4 < pause <= 5  # 20 times as large takes 10 seconds, of which 5 are over
    engine.shard.written -= pause
    engine.merger.tend()
    engine.finish()
    assert [one.facts.points for one in engine.shard.runs] == [105]
    assert engine.merger.pause is None


def test_a_merge_leaves_nothing_to_wait_for(engine, monkeypatch):
    monkeypatch.setattr(merging, "REST_POINTS", 4)
    engine.put(*(document(f"a{number}", chunks=8) for number in range(2)))
    engine.merge()
    engine.put(document("b", chunks=5))
    engine.shard  # noqa: B018  it is ragged now
    assert engine.merger.pause is not None
    engine.put(document("c", chunks=6))  # enough for a merge at once
    engine.merge()
    assert [one.facts.points for one in engine.shard.runs] == [27]
    assert engine.merger.pause is None
    engine.merger.tend()
    assert not engine.merger.busy


def test_a_very_small_rest_stays_beside_a_large_run(engine, monkeypatch):
    monkeypatch.setattr(merging, "MOST_GROWTH", 15.0)
    monkeypatch.setattr(merging, "REST_POINTS", 4)
    engine.put(*(document(f"a{number}", chunks=20) for number in range(5)))
    engine.merge()
    engine.put(document("b", chunks=5))
    engine.shard.written -= 10 * merging.REST_SECONDS
    engine.merger.tend()
    engine.finish()
    assert [one.facts.points for one in engine.shard.runs] == [100, 5]
    assert engine.merger.pause is None


def test_runs_answer_as_one_shard_would(tmp_path):
    rng = np.random.default_rng(4)

    def vary(chunk: EncodedChunk) -> EncodedChunk:
        terms = sorted(set(rng.geometric(0.2, size=6).tolist()))
        return replace(
            chunk,
            dense=rng.standard_normal(DIMENSIONS).astype("<f4").tobytes(),
            sparse=SparseVector(tuple(terms), tuple(rng.random(len(terms)).tolist())),
        )

    documents = [document(f"d{n}", chunks=10) for n in range(12)]
    answers = []
    for folder, points in ((tmp_path / "one", 10_000), (tmp_path / "several", 30)):
        rng = np.random.default_rng(4)
        with opened(folder, points) as engine:
            engine.index.create_collection(collection(), 10)
            for n, one in enumerate(documents):
                engine.put(one, vary=vary)
                if points == 30 and n in (3, 7):
                    engine.merge()
            if points == 30:
                sizes = [part.count() for part in engine.shard._parts()]
                assert len(sizes) > 1
                assert sum(sizes) == 120
            question = StoreQuery(
                top_k=50, depth=120, weights=ArmWeights(0.5, 0.5),
                dense=np.ones(DIMENSIONS, "<f4").tobytes(),
                sparse=SparseVector((1, 2, 7, 12, 99), (1.0, 2.0, 1.0, 1.0, 1.0)),
            )  # fmt: skip
            hits = engine.index.search(KEY, question)
            weights = engine.index.term_weights(KEY, (1, 2, 7, 12, 99))
            answers.append((hits, weights))
    (whole, whole_weights), (several, weights) = answers
    assert weights == pytest.approx(whole_weights, rel=1e-5)
    assert weights[-1] == 0.0  # no chunk has that term
    assert [hit.chunk.chunk_id for hit in several] == [hit.chunk.chunk_id for hit in whole]
    for name in ("score", "dense_score", "sparse_score"):
        assert [getattr(hit, name) or 0.0 for hit in several] == pytest.approx(
            [getattr(hit, name) or 0.0 for hit in whole], rel=1e-4
        )


def test_what_is_deleted_or_replaced_during_a_merge_stays_so(engine):
    engine.put(document("a", chunks=6), document("b", chunks=6), document("c", chunks=6))
    engine.begin()
    engine.index.delete_document(KEY, "a", ())
    new = document("b", "2", chunks=3)
    engine.put(new)
    position = engine.index.scan(KEY, 0, 1)[0].position  # the first of c, in the run
    engine.index.replace_sparse(KEY, [(position, SparseVector((TERM, 5), (9.0, 1.0)))])
    assert engine.texts() == expected(new, document("c", chunks=6))
    engine.finish()
    assert engine.merger.counts.merges == 1
    assert engine.texts() == expected(new, document("c", chunks=6))
    assert engine.shard.count() == 9
    best = engine.index.search(KEY, replace(ALL, sparse=SparseVector((5,), (1.0,))))
    assert [hit.chunk.text for hit in best] == ["c-1 chunk 0"]


def test_a_merge_that_dies_changes_nothing_and_is_tried_again(engine, monkeypatch):
    monkeypatch.setattr(merging, "PAUSE_SECONDS", 0.0)
    engine.put(document("a", chunks=12))
    engine.begin()
    assert engine.merger.process_id is not None
    os.kill(engine.merger.process_id, signal.SIGKILL)
    until_sync(engine.merger._running.ended.is_set, seconds=10)
    assert engine.texts() == expected(document("a", chunks=12))
    engine.merger.tend()
    assert engine.merger.counts.failed == 1
    engine.finish() if engine.merger.busy else engine.merge()
    assert engine.merger.counts.merges == 1
    assert engine.texts() == expected(document("a", chunks=12))
    layout_ = layout.read(engine.shard.path)
    assert engine.names() == {layout_.delta, *(one.name for one in layout_.runs)}


def test_a_run_that_lacks_points_is_refused(engine):
    engine.put(document("a", chunks=12))
    engine.begin()
    running = engine.merger._running
    until_sync(running.ended.is_set, seconds=60)
    torn = Part(engine.shard.path / running.target)
    torn.delete(torn.ids()[:1])
    torn.close()
    engine.merger.tend()
    assert (engine.merger.counts.merges, engine.merger.counts.failed) == (0, 1)
    assert engine.texts() == expected(document("a", chunks=12))
    assert running.target not in engine.names()


def test_a_collection_may_go_during_its_merge(engine):
    engine.put(document("a", chunks=12))
    engine.begin()
    process = engine.merger._running.process
    path = engine.shard.path
    engine.index.delete_collection(KEY, ())
    assert process.poll() is not None
    assert not engine.merger.busy
    assert not path.exists()


def test_a_run_of_dead_points_is_written_anew(engine, monkeypatch):
    monkeypatch.setattr(merging, "DEAD_POINTS", 5)
    engine.put(document("a", chunks=6), document("b", chunks=6))
    engine.merge()
    assert [one.facts.points for one in engine.shard.runs] == [12]
    engine.index.delete_document(KEY, "a", ())
    engine.merge()
    assert [one.facts.points for one in engine.shard.runs] == [6]
    engine.index.delete_document(KEY, "b", ())
    engine.merge()
    assert engine.shard.runs == []
    assert engine.texts() == []


def test_each_point_of_a_merged_run_can_be_deleted(tmp_path):
    """A run's log is begun anew when it is made: what counted less than a point's own last
    operation would leave the point where it is."""
    documents = [document(f"d{number}", chunks=400) for number in range(5)]
    with opened(tmp_path, points=1000) as engine:
        engine.index.create_collection(collection(), 10)
        engine.put(*documents)
        engine.merge()
        (run,) = engine.shard.runs
        assert (run.facts.points, run.facts.merged) == (2000, True)
        log = engine.shard.path / run.facts.name / "wal"
        assert sum(path.stat().st_blocks * 512 for path in log.iterdir()) < 100_000
        copy_tree(log.parent, tmp_path / "before")
        for one in documents[1:]:
            engine.index.delete_document(KEY, one.id, ())
        assert engine.texts() == expected(documents[0])
        assert run.part.count() == 400
        # Of what was not flushed a lost power supply leaves the log alone.
        shutil.rmtree(tmp_path / "before" / "wal")
        copy_tree(log, tmp_path / "before" / "wal")
    with opened(tmp_path, points=1000) as engine:
        assert engine.texts() == expected(documents[0])
    recovered = Part(tmp_path / "before")
    assert recovered.count() == 400
    recovered.close()


def test_without_space_there_is_no_merge_and_writes_go_on(engine, monkeypatch, caplog):
    monkeypatch.setattr(merging, "SPARE_BYTES", 1 << 60)
    engine.put(document("a", chunks=12))
    engine.shard  # noqa: B018
    engine.merger.tend()
    assert not engine.merger.busy
    assert engine.merger.counts.no_space == 1
    assert "no space to merge" in caplog.text
    engine.put(document("b", chunks=12))
    assert engine.texts() == expected(document("a", chunks=12), document("b", chunks=12))


@pytest.mark.parametrize("moment", ["freeze", "write", "written", "removed"])
def test_the_process_may_die_at_any_step(tmp_path, monkeypatch, moment):
    """Each step of a freeze and of a swap is the last one of a process; then another opens."""
    documents = [document("a", chunks=12), document("b", chunks=4)]
    with opened(tmp_path) as engine:
        engine.index.create_collection(collection(), 10)
        engine.put(*documents)
        real_write, real_remove = layout.write, layout.remove

        def dying_write(folder: Path, changed: Layout) -> None:
            if moment == "write" and any(one.merged for one in changed.runs):
                raise Dead
            if moment == "freeze":
                raise Dead
            real_write(folder, changed)
            if moment == "written" and any(one.merged for one in changed.runs):
                raise Dead

        def dying_remove(folder: Path, name: str) -> None:
            real_remove(folder, name)
            if moment == "removed":
                raise Dead

        with monkeypatch.context() as patched:
            patched.setattr(shards, "write", dying_write)
            patched.setattr(shards, "remove", dying_remove)
            with pytest.raises(Dead):
                engine.merge()
    with opened(tmp_path, 10_000) as engine:
        assert engine.texts() == expected(*documents)
        assert engine.shard.count() == 16
        layout_ = layout.read(engine.shard.path)
        assert engine.names() == {layout_.delta, *(one.name for one in layout_.runs)} - {"."}
        engine.put(document("a", "2", chunks=2))
        assert engine.texts() == expected(document("a", "2", chunks=2), documents[1])


def test_points_that_moved_before_a_death_count_once(tmp_path, monkeypatch):
    with opened(tmp_path) as engine:
        engine.index.create_collection(collection(), 10)
        engine.put(document("a", chunks=12))
        engine.merge()
        position = engine.index.scan(KEY, 0, 1)[0].position

        def die(_points: object) -> None:
            raise Dead

        with monkeypatch.context() as patched:
            patched.setattr(engine.shard, "_delete_from_runs", die)
            with pytest.raises(Dead):
                engine.index.replace_sparse(KEY, [(position, SparseVector((TERM,), (5.0,)))])
    with opened(tmp_path) as engine:
        assert engine.texts() == expected(document("a", chunks=12))
        assert engine.shard.count() == 12
        engine.put(document("b", chunks=12))
        engine.merge()
        assert engine.merger.counts.failed == 0
        assert engine.texts() == expected(document("a", chunks=12), document("b", chunks=12))


def test_a_closed_collection_of_several_parts_opens_again(engine):
    engine.put(document("a", chunks=12))
    engine.merge()
    engine.put(document("b", chunks=3))
    engine.shards.close_all()
    assert engine.texts() == expected(document("a", chunks=12), document("b", chunks=3))


def test_a_layout_of_a_later_version_is_not_guessed_at(engine):
    engine.put(document("a"))
    path = engine.shard.path
    engine.shards.close_all()
    (path / layout.FILE).write_text('{"format": 2}')
    with pytest.raises(Exception, match="COLLECTION_UNREADABLE"):
        engine.texts()


def test_a_collection_that_grows_gets_indexes_and_finds_the_same(tmp_path):
    ours, theirs = document("ours", chunks=20), document("theirs", chunks=20)
    asked = replace(ALL, attributes=("us",))
    with opened(tmp_path, points=100_000) as engine:
        engine.index.create_collection(collection(), 10)
        engine.put(replace(ours, access=("us",)), replace(theirs, access=("them",)))
        assert not fields(engine) & set(INDEXED)
        assert found(engine, asked) == expected(ours)
        added = document("for all", chunks=INDEX_POINTS)
        engine.put(added)
        more = document("more", chunks=100)
        engine.put(more)  # one index with each write
        assert set(INDEXED) <= fields(engine)
        assert found(engine, asked) == expected(ours, added, more)
    with opened(tmp_path, points=100_000) as engine:
        assert found(engine, asked) == expected(ours, added, more)
        assert set(INDEXED) <= fields(engine)


def found(engine: Engine, query: StoreQuery) -> list[str]:
    return sorted(hit.chunk.text for hit in engine.index.search(KEY, query))


def fields(engine: Engine) -> set[str]:
    """Those that the engine has an index of."""
    return set(engine.shard.delta._edge.info().payload_schema)


def test_room_is_made_ahead_of_the_next_opening(tmp_path):
    shards_ = Shards(tmp_path, 8)
    facts = collection()
    for number in range(8):
        shards_.open(f"t/{number}", facts, expect_data=False)
        assert shards_.crowded == (number == 7)
    shards_.close_oldest()
    assert len(shards_) == 7
    assert not shards_.crowded
    first = shards_.open("t/1", facts, expect_data=True)
    assert first.count() == 0  # it had stayed open: only the longest unused went
    shards_.close_all()
