"""Engines that could be the embedded one, each by its own library: what the default is held to.

All hold the vectors and texts of `bench.corpus` and answer hybrid, top 10: the best 50 by cosine
and by BM25, joined by reciprocal rank fusion. HNSW everywhere with m = 16, ef_construction = 100
and ef = 128. Edge fuses in the engine; the others are fused here, and their sparse arm is tantivy.
Exact search over the same vectors gives recall.

A thread that wants to wake every millisecond tells what a library does to the other threads of its
process: the longest time that it could not, while building and while searching. A service that has
the library in process would be as deaf.
"""

import argparse
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import inside
from bench.corpus import Corpus, Piece, Question
from bench.harness import Block, Defaults, Side, Work, stopwatch
from bench.harness.sides import Figures
from bench.harness.usage import peak_rss_mb
from bench.search import RANK_CONSTANT, TOP_K, encoded, exact, recall
from bench.word_vectors import DIMENSIONS, WordVectors
from services.retrieve.adapters.terms import TermsAnalyzer

SUMMARY = "engines that could be embedded: Edge, usearch or faiss with tantivy, by their libraries"
QUICK = ("--chunks", "2000", "--queries", "100", "--starts", "1", "--rounds", "2")
DEFAULTS = Defaults(starts=2, rounds=3)
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "Edge": ("Edge", {}),
    "Edge int8": ("Edge", {"int8": True}),
    "Edge plain scan": ("Edge", {"plain": True}),
    "usearch f32 + tantivy": ("Usearch", {"kind": "f32"}),
    "usearch f16 + tantivy": ("Usearch", {"kind": "f16"}),
    "usearch i8 + tantivy": ("Usearch", {"kind": "i8"}),
    "faiss HNSW + tantivy": ("Faiss", {}),
}
M, EF_CONSTRUCTION, EF = 16, 100, 128
DEPTH = 50
JUDGED = 200
_BATCH = 500


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=300, help="of a block")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    common = {"chunks": options.chunks, "queries": options.queries, "rounds": options.rounds}
    return [
        Side(
            name,
            f"bench.engines:{engine}",
            {**common, **own, "folder": str(folder / f"engine-{number}")},
            build=True,
        )
        for number, (name, (engine, own)) in enumerate(SIDES.items())
    ]


class Engine(Work):
    """What all have in common: `index`, `load` and the two arms differ."""

    async def build(self) -> Figures:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        corpus, encoder = self._corpus(), self._encoder()
        started = time.perf_counter()
        spent: list[float] = []
        with ticker() as gaps:
            for pieces, rows in _batches(corpus, encoder):
                with stopwatch(spent):
                    self.add(pieces, rows)
            with stopwatch(spent):
                self.finish()
        peak = sum(peak_rss_mb().values())
        nearest = exact(corpus, encoder, self._questions(corpus)[:JUDGED])
        np.save(self.folder / "nearest.npy", nearest)
        return {
            "build_s": sum(spent),
            "with text and vectors_s": time.perf_counter() - started,
            "build_peak_rss_mb": peak,
            "build_longest_freeze_ms": max(gaps) * 1000,
            "disk_mb": inside.disk_mb(self.folder),
        }

    async def prepare(self) -> Figures:
        corpus, encoder = self._corpus(), self._encoder()
        started = time.perf_counter()
        self.load()
        opened = time.perf_counter() - started
        per_round = int(self.options["queries"])
        questions = self._questions(corpus)
        rows = encoded(encoder, [one.text for one in questions], query=True)
        pairs = list(zip(questions, rows, strict=True))
        judged, rest = pairs[:JUDGED], iter(pairs[JUDGED:])
        self._rounds = [list(islice(rest, per_round)) for _ in range(int(self.options["rounds"]))]
        found = [self.dense(row, TOP_K) for _, row in judged]
        for question, row in judged:
            self.hybrid(question, row)
        return {
            "open_s": opened,
            "recall_at_10": recall(found, np.load(self.folder / "nearest.npy")),
        }

    async def measure(self, round_: int) -> Block:
        seconds: list[float] = []
        with ticker() as gaps:
            for question, row in self._rounds[round_]:
                with stopwatch(seconds):
                    found = self.hybrid(question, row)
                assert found
        figures = {"search_longest_freeze_ms": max(gaps) * 1000}
        return Block(len(seconds), {"hybrid": seconds}, figures)

    def _questions(self, corpus: Corpus) -> list[Question]:
        """Those of the recall, then those of the rounds."""
        rounds = int(self.options["queries"]) * int(self.options["rounds"])
        return corpus.questions(JUDGED + rounds)

    @property
    def folder(self) -> Path:
        return Path(self.options["folder"])

    def _corpus(self) -> Corpus:
        return Corpus(self.seed, chunks=int(self.options["chunks"]))

    def _encoder(self) -> WordVectors:
        encoder = WordVectors(f"{self.seed},{self.options['chunks']}")
        encoder.load()
        return encoder

    def add(self, pieces: Sequence[Piece], rows: NDArray[np.float32]) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def finish(self) -> None:
        """Make everything searchable and durable."""
        raise NotImplementedError

    def load(self) -> None:
        """Open what `build` has made."""
        raise NotImplementedError

    def dense(self, row: NDArray[np.float32], limit: int) -> list[int]:
        raise NotImplementedError

    def sparse(self, text: str, limit: int) -> list[int]:
        raise NotImplementedError

    def hybrid(self, question: Question, row: NDArray[np.float32]) -> list[int]:
        worth: dict[int, float] = defaultdict(float)
        for run in (self.dense(row, DEPTH), self.sparse(question.text, DEPTH)):
            for rank, number in enumerate(run, 1):
                worth[number] += 1 / (RANK_CONSTANT + rank)
        return sorted(worth, key=lambda number: -worth[number])[:TOP_K]


class Edge(Engine):
    """Qdrant Edge: both arms and the fusion in one engine; our analyser's terms."""

    async def build(self) -> Figures:
        import qdrant_edge as edge  # noqa: PLC0415  only this side needs it

        self._edge = edge
        self._analyzer = TermsAnalyzer()
        (self.folder / "shard").mkdir(parents=True, exist_ok=True)
        return await super().build()

    def add(self, pieces: Sequence[Piece], rows: NDArray[np.float32]) -> None:
        if not hasattr(self, "_shard"):
            path = self.folder / "shard"
            path.mkdir(parents=True, exist_ok=True)
            self._shard = self._edge.EdgeShard.create(str(path), self._config())
        points = []
        for one, row in zip(pieces, rows, strict=True):
            terms = self._analyzer.document(f"{one.title}\n{one.text}", "en", {})
            sparse = self._edge.SparseVector(list(terms.indices), list(terms.values))
            vectors = {"dense": row.tolist(), "sparse": sparse}
            points.append(self._edge.Point(one.number, vectors, {"text": one.text}))
        self._shard.update(self._edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        if not self.options.get("plain"):
            self._shard.optimize()
        self._shard.flush()

    def load(self) -> None:
        import qdrant_edge as edge  # noqa: PLC0415

        self._edge = edge
        self._analyzer = TermsAnalyzer()
        self._shard = edge.EdgeShard.load(str(self.folder / "shard"))

    def _config(self) -> Any:
        edge = self._edge
        quantized = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99)
        return edge.EdgeConfig(
            vectors={
                "dense": edge.EdgeVectorParams(
                    size=DIMENSIONS,
                    distance=edge.Distance.Cosine,
                    hnsw_config=edge.HnswIndexConfig(M, EF_CONSTRUCTION, 1000),
                    quantization_config=quantized if self.options.get("int8") else None,
                )
            },
            sparse_vectors={"sparse": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1000),
            max_search_threads=1,
        )

    def _nearest(self, row: NDArray[np.float32]) -> Any:
        return self._edge.Query.Nearest(row.tolist(), using="dense")

    def dense(self, row: NDArray[np.float32], limit: int) -> list[int]:
        params = self._edge.SearchParams(hnsw_ef=EF)
        request = self._edge.QueryRequest(limit=limit, query=self._nearest(row), params=params)
        return [int(one.id) for one in self._shard.query(request)]

    def hybrid(self, question: Question, row: NDArray[np.float32]) -> list[int]:
        edge = self._edge
        terms = self._analyzer.query(question.text, "en")
        sparse = edge.SparseVector(list(terms.indices), list(terms.values))
        request = edge.QueryRequest(
            limit=TOP_K,
            prefetches=[
                edge.Prefetch(
                    DEPTH, query=self._nearest(row), params=edge.SearchParams(hnsw_ef=EF)
                ),
                edge.Prefetch(DEPTH, query=edge.Query.Nearest(sparse, using="sparse")),
            ],
            query=edge.Fusion.Rrf(RANK_CONSTANT),
        )
        return [int(one.id) for one in self._shard.query(request)]


class Tantivy(Engine):
    """The sparse arm of those that have none: English stems, BM25."""

    def _schema(self) -> Any:
        import tantivy  # noqa: PLC0415

        self._tantivy = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("number", stored=True, fast=True)
        builder.add_text_field("body", stored=True, tokenizer_name="en_stem")
        return builder.build()

    def add(self, pieces: Sequence[Piece], rows: NDArray[np.float32]) -> None:
        if not hasattr(self, "_writer"):
            schema = self._schema()
            (self.folder / "tantivy").mkdir(parents=True, exist_ok=True)
            index = self._tantivy.Index(schema, path=str(self.folder / "tantivy"))
            self._writer = index.writer(heap_size=128 << 20, num_threads=1)
        for one in pieces:
            self._writer.add_document(
                self._tantivy.Document(number=one.number, body=f"{one.title}\n{one.text}")
            )

    def finish(self) -> None:
        self._writer.commit()
        self._writer.wait_merging_threads()

    def load(self) -> None:
        schema = self._schema()
        self._index = self._tantivy.Index(schema, path=str(self.folder / "tantivy"))
        self._searcher = self._index.searcher()

    def sparse(self, text: str, limit: int) -> list[int]:
        query = self._index.parse_query(text, ["body"])
        hits = self._searcher.search(query, limit).hits
        return [int(self._searcher.doc(address)["number"][0]) for _, address in hits]


class Usearch(Tantivy):
    """usearch: HNSW with vectors in 32, 16 or 8 bits."""

    def add(self, pieces: Sequence[Piece], rows: NDArray[np.float32]) -> None:
        super().add(pieces, rows)
        if not hasattr(self, "_vectors"):
            self._vectors = self._made()
        self._vectors.add(np.array([one.number for one in pieces], np.uint64), rows, threads=1)

    def _made(self) -> Any:
        from usearch.index import Index  # noqa: PLC0415

        return Index(
            ndim=DIMENSIONS, metric="cos", dtype=str(self.options["kind"]), connectivity=M,
            expansion_add=EF_CONSTRUCTION, expansion_search=EF,
        )  # fmt: skip

    def finish(self) -> None:
        super().finish()
        self._vectors.save(str(self.folder / "usearch"))

    def load(self) -> None:
        super().load()
        self._vectors = self._made()
        self._vectors.load(str(self.folder / "usearch"))

    def dense(self, row: NDArray[np.float32], limit: int) -> list[int]:
        return [int(one) for one in self._vectors.search(row, limit, threads=1).keys]


class Faiss(Tantivy):
    """faiss: HNSW over 32-bit vectors. It numbers what comes as it comes, as the corpus does."""

    def add(self, pieces: Sequence[Piece], rows: NDArray[np.float32]) -> None:
        import faiss  # noqa: PLC0415

        super().add(pieces, rows)
        if not hasattr(self, "_vectors"):
            faiss.omp_set_num_threads(1)
            self._vectors: Any = faiss.IndexHNSWFlat(DIMENSIONS, M, faiss.METRIC_INNER_PRODUCT)
            self._vectors.hnsw.efConstruction = EF_CONSTRUCTION
        self._vectors.add(rows)

    def finish(self) -> None:
        import faiss  # noqa: PLC0415

        super().finish()
        faiss.write_index(self._vectors, str(self.folder / "faiss"))

    def load(self) -> None:
        import faiss  # noqa: PLC0415

        super().load()
        faiss.omp_set_num_threads(1)
        self._vectors = faiss.read_index(str(self.folder / "faiss"))
        self._vectors.hnsw.efSearch = EF

    def dense(self, row: NDArray[np.float32], limit: int) -> list[int]:
        return [int(one) for one in self._vectors.search(row[None], limit)[1][0]]


def _batches(
    corpus: Corpus, encoder: WordVectors
) -> Iterator[tuple[list[Piece], NDArray[np.float32]]]:
    pieces = corpus.pieces()
    while batch := list(islice(pieces, _BATCH)):
        yield batch, encoded(encoder, [f"{one.title}\n{one.text}" for one in batch])


@contextmanager
def ticker() -> Iterator[list[float]]:
    """Gaps between the wakings, in seconds, of a thread that wants to wake every millisecond."""
    gaps = [0.0]
    over = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not over.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
        gaps.append(time.perf_counter() - last)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield gaps
    finally:
        over.set()
        thread.join()
