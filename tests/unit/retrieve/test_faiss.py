"""The faiss shard itself: graphs, replaced and dead rows, and what lies on disk."""

import json
import shutil
import sqlite3

import numpy as np
import pytest

from services.retrieve.adapters.faiss import dense, shards
from services.retrieve.adapters.faiss.dense import read_graph
from services.retrieve.adapters.faiss.postings import Postings
from services.retrieve.adapters.faiss.shards import FaissShard, FaissShards
from services.retrieve.adapters.points import Allowed, point_id
from services.retrieve.ports import (
    Chunk,
    CollectionKey,
    Condition,
    Document,
    EncodedChunk,
    Filter,
    NewCollection,
    SparseVector,
)
from services.runtime.errors import DataLoss

DIMENSIONS = 16
ROWS = 600
FACTS = NewCollection(CollectionKey("t", "c"), "", "e@1", DIMENSIONS, "terms@1", "0" * 64, 200, 20)
EVERYTHING = Allowed()


def vectors(rows: int = ROWS, seed: int = 1) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, DIMENSIONS)).astype("<f4")
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def points(made: np.ndarray, first: int = 1, terms: int = 50):
    for place, row in enumerate(made):
        version = first + place
        document = Document(
            f"d{version}", "title", "source", json.dumps({"n": version}), "h", "md", "en", 0, 1, 1
        )
        chunk = Chunk(0, f"text {version}", f"text {version}", "", None, "en")
        sparse = SparseVector((version % terms, 1000), (1.0 + version % 3, 0.5))
        yield version, document, EncodedChunk("", chunk, row.tobytes(), sparse)


@pytest.fixture
def graphs(monkeypatch):
    """Graphs from few rows on."""
    monkeypatch.setattr(dense, "GRAPH_FROM", 200)
    monkeypatch.setattr(shards, "DEAD_ROWS", 100)


def exact(made: np.ndarray, query: np.ndarray, limit: int) -> list[int]:
    return [point_id(1 + row, 0) for row in np.argsort(-(made @ query))[:limit].tolist()]


def found(shard: FaissShard, query: np.ndarray, limit: int, allowed=EVERYTHING) -> list[int]:
    return [point for point, _ in shard.nearest(query.tobytes(), limit, allowed)]


def test_a_graph_finds_what_a_scan_finds_and_is_read_again(graphs, tmp_path):
    made = vectors()
    shard = FaissShard(tmp_path, DIMENSIONS)
    shard.upsert(points(made[:400]))
    shard.flush()
    shard.settle()
    assert shard._dense.graph_rows == 400
    shard.upsert(points(made[400:], first=401))  # these are scanned
    queries = vectors(20, seed=2)
    for query in queries:
        assert len(set(found(shard, query, 10)) & set(exact(made, query, 10))) >= 9
    shard.flush()
    shard.close()
    again = FaissShard(tmp_path, DIMENSIONS)
    assert again._dense.graph_rows in (400, 600)
    assert again.count() == ROWS
    for query in queries:
        assert len(set(found(again, query, 10)) & set(exact(made, query, 10))) >= 9
    again.close()


def test_what_is_deleted_or_replaced_is_not_found_in_a_graph(graphs, tmp_path):
    made = vectors()
    shard = FaissShard(tmp_path, DIMENSIONS)
    shard.upsert(points(made))
    shard.flush()
    shard.settle()
    query = made[0]
    best = exact(made, query, 20)
    gone = [point for point in best if point != point_id(21, 0)][:10]
    shard.delete(gone)
    assert not set(found(shard, query, 300)) & set(gone)
    shard.upsert(points(-query[np.newaxis], first=21))  # a point that the graph has otherwise
    shard.flush()
    hits = dict(shard.nearest(query.tobytes(), 590, EVERYTHING))
    assert len(hits) == shard.count() == 590
    assert hits[point_id(21, 0)] == pytest.approx(-1.0, abs=1e-5)
    shard.close()
    again = FaissShard(tmp_path, DIMENSIONS)
    after = dict(again.nearest(query.tobytes(), 600, EVERYTHING))
    assert after == pytest.approx(hits, abs=1e-5)
    again.close()


def test_filtered_searches_are_exact(graphs, tmp_path):
    made = vectors()
    shard = FaissShard(tmp_path, DIMENSIONS)
    shard.upsert(points(made))
    shard.flush()
    shard.settle()
    wanted = [3, 99, 250, 599]
    allowed = Allowed(
        filter=Filter(should=tuple(Condition("metadata.n", equals=float(n)) for n in wanted))
    )
    for query in vectors(5, seed=3):
        cosines = {n: float(made[n - 1] @ query) for n in wanted}
        order = sorted(wanted, key=lambda n: -cosines[n])
        assert found(shard, query, 10, allowed) == [point_id(n, 0) for n in order]
    hidden = Allowed(hidden=frozenset(point_id(n, 0) for n in range(1, 590)))
    assert len(found(shard, made[0], 50, hidden)) == 11
    shard.close()


def test_weights_can_be_replaced_without_a_new_graph(graphs, tmp_path):
    made = vectors()
    shard = FaissShard(tmp_path, DIMENSIONS)
    shard.upsert(points(made))
    shard.flush()
    shard.settle()
    for _ in range(3):  # dead rows are dropped in between
        shard.upsert(points(made, terms=7))
        shard.flush()
    assert shard.count() == ROWS
    assert len(shard._points) <= 2 * ROWS
    hits = shard.nearest(SparseVector((3,), (1.0,)), 1000, EVERYTHING)
    assert {point for point, _ in hits} == {point_id(n, 0) for n in range(1, 601) if n % 7 == 3}
    shard.close()
    again = FaissShard(tmp_path, DIMENSIONS)
    assert again.count() == ROWS
    assert again._dense.graph_rows >= ROWS
    assert len(found(again, made[0], 1000)) == ROWS
    assert sorted(again.nearest(SparseVector((3,), (1.0,)), 1000, EVERYTHING)) == sorted(hits)
    again.close()


def test_a_broken_graph_is_made_again(graphs, tmp_path):
    made = vectors()
    shard = FaissShard(tmp_path, DIMENSIONS)
    shard.upsert(points(made))
    shard.flush()
    shard.settle()
    shard.close()
    file = tmp_path / "graph"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert read_graph(tmp_path, DIMENSIONS) is None
    again = FaissShard(tmp_path, DIMENSIONS)
    assert again._dense.graph_rows == 0
    assert found(again, made[5], 10) == exact(made, made[5], 10)
    again.settle()
    again.settle()
    assert again._dense.graph_rows == ROWS
    again.close()
    assert read_graph(tmp_path, DIMENSIONS) is not None


def test_what_is_not_flushed_is_lost(tmp_path):
    shard = FaissShard(tmp_path / "one", DIMENSIONS)
    shard.upsert(points(vectors(3)))
    shard.flush()
    shard.upsert(points(vectors(2), first=10))
    shutil.copytree(tmp_path / "one", tmp_path / "killed")
    other = FaissShard(tmp_path / "killed", DIMENSIONS)
    assert other.count() == 3
    other.close()
    shard.close()


def test_a_shard_that_could_not_write_is_opened_again(tmp_path):
    opened = FaissShards(tmp_path, 4)
    shard = opened.open("t/c", FACTS, expect_data=False)
    shard.upsert(points(vectors(3)))
    shard.flush()
    pages = shard._rows._db.execute("PRAGMA page_count").fetchone()[0]
    shard._rows._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError):
        shard.upsert(points(vectors(500), first=10))
    again = opened.open("t/c", FACTS, expect_data=True)
    assert again is not shard
    assert again.count() == 3
    opened.close_all()


def test_a_collection_without_its_points_is_told(tmp_path):
    opened = FaissShards(tmp_path, 4)
    shard = opened.open("t/c", FACTS, expect_data=False)
    shard.upsert(points(vectors(3)))
    opened.close_all()
    (tmp_path / "t" / "c" / "points.sqlite").write_bytes(b"no database" * 500)
    for _ in range(2):
        with pytest.raises(DataLoss):
            opened.open("t/c", FACTS, expect_data=True)
        (tmp_path / "t" / "c" / "points.sqlite").unlink(missing_ok=True)


def test_postings_score_as_the_formula_says():
    postings = Postings()
    rng = np.random.default_rng(5)
    dense_rows = np.where(rng.random((300, 40)) < 0.2, rng.random((300, 40)), 0.0)
    for start in range(0, 300, 7):
        part = dense_rows[start : start + 7]
        postings.add(
            start,
            [(np.flatnonzero(row).astype(np.uint32), row[row > 0].astype(np.float32))
             for row in part],
        )  # fmt: skip
    alive = rng.random(300) < 0.8
    counts = (dense_rows[alive] > 0).sum(axis=0)
    idf = np.log((alive.sum() - counts + 0.5) / (counts + 0.5) + 1)
    assert postings.idf(range(40), alive) == pytest.approx(idf.tolist())
    query = SparseVector((1, 5, 9, 77), (1.0, 0.5, 2.0, 3.0))
    scores = dense_rows[:, [1, 5, 9]] @ (idf[[1, 5, 9]] * np.array([1.0, 0.5, 2.0])) * alive
    order = np.argsort(-scores)[:10]
    hits = postings.search(query, 10, alive, alive)
    assert [row for row, _ in hits] == order.tolist()
    assert [score for _, score in hits] == pytest.approx(scores[order].tolist(), rel=1e-5)
    assert len(postings._parts) < 10
