"""Hybrid search over seeded text: the embedded engine beside qdrant-client local + Whoosh.

All sides hold the chunks of `bench.corpus` and answer the same distinct questions, hybrid, top 10,
embedding cached. `ragmesh` calls the retrieve service's use case in process, so its engine process
is in it and gRPC is not; `ragmesh over gRPC` (--grpc) asks a service process. `qdrant local +
Whoosh` is what a Python user would write: exact cosine by qdrant-client's local mode, BM25F by
Whoosh, 50 hits of each joined by reciprocal rank fusion; above --peer-limit chunks it is left out.

Building is timed apart: indexing, then whatever goes on in the background until the processes come
to rest (calibration, optimising). Recall is that of the dense arm against exact search over the
encoder's own vectors.
"""

import argparse
import asyncio
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import inside
from bench.corpus import Corpus, Piece, Question
from bench.harness import Block, Finding, Run, Side, Work, stopwatch
from bench.harness.sides import Figures
from bench.harness.usage import peak_rss_mb, settle
from bench.process import Service, metadata
from bench.word_vectors import DIMENSIONS, WordVectors
from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from services.retrieve.core import Retrieval
from services.retrieve.ports import ArmWeights, Matrix
from services.retrieve.searches import Found, Search

SUMMARY = "hybrid search over N chunks, beside qdrant-client local + Whoosh, with recall"
QUICK = ("--chunks", "5000", "--queries", "100", "--starts", "1", "--rounds", "3")
RAGMESH, OVER_GRPC, PEER = "ragmesh", "ragmesh over gRPC", "qdrant local + Whoosh"
BOTH_ARMS = ArmWeights(0.5, 0.5)
"""Asked for by name: a calibration might find one arm useless, and the search would be cheap."""
TOP_K = 10
ARM_DEPTH = 50
RANK_CONSTANT = 60
RECALL_QUERIES = 200
WARM_QUERIES = 50
FULL_SIZE = 100_000
_EXACT_BATCH = 2_000
_REST_SECONDS = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=500, help="of a block")
    parser.add_argument("--peer-queries", type=int, default=40, help="of a block, of the peer")
    parser.add_argument("--peer-limit", type=int, default=100_000, help="chunks; 0: no peer")
    parser.add_argument("--grpc", action="store_true", help="also through a service process")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    common = {
        "folder": str(folder),
        "chunks": options.chunks,
        "queries": options.queries,
        "rounds": options.rounds,
    }
    found = [Side(RAGMESH, "bench.search:Ragmesh", common, build=True)]
    if options.grpc:
        found.append(Side(OVER_GRPC, "bench.search:OverGrpc", common, build=True))
    if options.chunks <= options.peer_limit:
        peer = {**common, "peer_queries": min(options.queries, options.peer_queries)}
        found.append(Side(PEER, "bench.search:Peer", peer, build=True))
    else:
        print(f"{PEER} is left out: more than {options.peer_limit:,} chunks (--peer-limit)")
    return found


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    found = []
    if RAGMESH in run.sides:
        one = run.summary(RAGMESH, "hybrid")
        large = options.chunks > FULL_SIZE
        what = f"hybrid top 10 of {options.chunks:,} chunks"
        found += [
            Finding(f"{what}, p50", one.p50 * 1000, "ms", below=10 if large else 2),
            Finding(f"{what}, p99", one.p99 * 1000, "ms", below=None if large else 10),
            Finding(
                "recall@10 of the dense arm", run.figure(RAGMESH, "recall_at_10"), at_least=0.95
            ),
        ]
    if {RAGMESH, PEER} <= set(run.sides):
        times = run.speedup(RAGMESH, PEER, "hybrid")
        found.append(Finding(f"times as fast as {PEER}", times, at_least=50))
    return found


class Searching(Work):
    """The corpus, its questions, and what exact search finds."""

    def corpus(self) -> Corpus:
        return Corpus(self.seed, chunks=int(self.options["chunks"]))

    def encoder(self) -> WordVectors:
        encoder = WordVectors(self.model)
        encoder.load()
        return encoder

    @property
    def model(self) -> str:
        return f"{self.seed},{self.options['chunks']}"

    @property
    def folder(self) -> Path:
        return Path(self.options["folder"])

    def ask(self) -> None:
        """Fill `questions`: those to warm up with, those of the recall, and the rounds'."""
        per_round, rounds = int(self.options["queries"]), int(self.options["rounds"])
        found = iter(self.corpus().questions(WARM_QUERIES + RECALL_QUERIES + per_round * rounds))
        self.warm = list(islice(found, WARM_QUERIES))
        self.judged = list(islice(found, RECALL_QUERIES))
        self.rounds: list[list[Question]] = [list(islice(found, per_round)) for _ in range(rounds)]


def exact(corpus: Corpus, encoder: WordVectors, questions: Sequence[Question]) -> NDArray[np.int64]:
    """Numbers of the nearest chunks of each question, nearest first: shape (questions, top)."""
    asked = encoded(encoder, [one.text for one in questions], query=True)
    scores = np.full((len(questions), TOP_K), -np.inf, np.float32)
    numbers = np.full((len(questions), TOP_K), -1, np.int64)
    pieces = iter(corpus.pieces())
    first = 0
    while batch := list(islice(pieces, _EXACT_BATCH)):
        rows = encoded(encoder, [f"{one.title}\n{one.text}" for one in batch])
        merged = np.concatenate([scores, asked @ rows.T], axis=1)
        known = np.concatenate(
            [numbers, np.broadcast_to(np.arange(len(batch)) + first, (len(asked), len(batch)))],
            axis=1,
        )
        best = np.argsort(-merged, axis=1, kind="stable")[:, :TOP_K]
        scores = np.take_along_axis(merged, best, axis=1)
        numbers = np.take_along_axis(known, best, axis=1)
        first += len(batch)
    return numbers


def encoded(encoder: WordVectors, texts: Sequence[str], *, query: bool = False) -> Matrix:
    """Vectors of texts."""
    return encoder.forward([one.ids for one in encoder.tokenize(texts, query=query, truncate=True)])


def recall(found: Sequence[Sequence[int]], nearest: NDArray[np.int64]) -> float:
    """Share of the nearest chunks that were found, over all questions."""
    hits = sum(
        len(set(one) & set(exact_.tolist())) for one, exact_ in zip(found, nearest, strict=True)
    )
    return hits / nearest.size


class Ragmesh(Searching):
    """`Retrieval.search` in this process."""

    data = "ragmesh"

    async def build(self) -> Figures:
        retrieval = await self._open()
        await retrieval.create_collection(inside.TENANT, inside.COLLECTION)
        corpus = self.corpus()
        try:
            seconds = await inside.ingest(retrieval, corpus.pieces(), corpus.chunks)
            started = time.perf_counter()
            await inside.calibrated(retrieval)
            calibrated = time.perf_counter()
            # What rests is merged further, up to a minute later.
            await settle(_REST_SECONDS * 60, _REST_SECONDS)
            rested = time.perf_counter()
            figures = {f"build_peak_rss_mb of {name}": mb for name, mb in peak_rss_mb().items()}
        finally:
            await retrieval.aclose()
        self.ask()
        nearest = await asyncio.to_thread(exact, corpus, self.encoder(), self.judged)
        np.save(self.folder / "nearest.npy", nearest)
        return {
            "index_s": seconds,
            "chunks_per_s": corpus.chunks / seconds,
            "calibrate_s": calibrated - started,
            "rest_s": rested - calibrated,
            "disk_mb": inside.disk_mb(self.folder / self.data),
            **figures,
        }

    async def prepare(self) -> Figures:
        self.ask()
        self._retrieval = await self._open()
        every = [*self.warm, *self.judged, *(one for round_ in self.rounds for one in round_)]
        for one in every:  # what is measured is a search whose embedding is cached
            await self._retrieval.encoder.query(one.text)
        for one in self.warm:
            await self._search(one.text)
        found = [
            [
                inside.number_of(hit.candidate.chunk.chunk_id, hit.candidate.chunk.document_id)
                for hit in (await self._search(one.text, "dense")).hits
            ]
            for one in self.judged
        ]
        rested = await settle()
        nearest = np.load(self.folder / "nearest.npy")
        return {"recall_at_10": recall(found, nearest), "settle_s": rested}

    async def measure(self, round_: int) -> Block:
        seconds: list[float] = []
        for one in self.rounds[round_]:
            with stopwatch(seconds):
                found = await self._search(one.text)
            assert found.hits
        return Block(len(seconds), {"hybrid": seconds})

    async def aclose(self) -> None:
        if hasattr(self, "_retrieval"):
            await self._retrieval.aclose()

    async def _open(self) -> Retrieval:
        return await inside.opened(
            inside.settings(
                self.folder / self.data, embedding_model=self.model, query_cache=1_000_000
            )
        )

    async def _search(self, text: str, mode: str = "hybrid") -> Found:
        weights = BOTH_ARMS if mode == "hybrid" else None
        request = Search(inside.COLLECTION, text, mode=mode, top_k=TOP_K, weights=weights)
        return await self._retrieval.search(inside.TENANT, request)


class OverGrpc(Searching):
    """The service's process, asked over gRPC, with a copy of the other side's data."""

    async def build(self) -> Figures:
        copy = ["cp", "-a", "--sparse=always", str(self.folder / Ragmesh.data)]
        await asyncio.to_thread(subprocess.run, [*copy, str(self.folder / "over-grpc")], check=True)
        return {}

    async def prepare(self) -> Figures:
        self.ask()
        self._service = Service(
            self.folder / "over-grpc", embedding_model=self.model, query_cache="1000000"
        )
        await self._service.start()
        every = [*self.warm, *self.judged, *(one for round_ in self.rounds for one in round_)]
        for one in every:
            await self._search(one.text)
        return {"settle_s": await settle()}

    async def measure(self, round_: int) -> Block:
        seconds: list[float] = []
        for one in self.rounds[round_]:
            with stopwatch(seconds):
                found = await self._search(one.text)
            assert found.hits
        return Block(len(seconds), {"hybrid": seconds})

    async def aclose(self) -> None:
        if hasattr(self, "_service"):
            await self._service.aclose()

    async def _search(self, text: str) -> pb.SearchResponse:
        request = pb.SearchRequest(
            collection=inside.COLLECTION,
            query=text,
            top_k=TOP_K,
            weights=pb.ArmWeights(dense=BOTH_ARMS.dense, sparse=BOTH_ARMS.sparse),
        )
        answer: pb.SearchResponse = await self._service.retrieve.Search(
            request, metadata=metadata()
        )
        return answer


class Peer(Searching):
    """qdrant-client's local mode and Whoosh, fused in Python."""

    async def build(self) -> Figures:
        # Whoosh and qdrant-client are slow to import, and only this side needs them.
        from whoosh import analysis, fields, index  # noqa: PLC0415

        corpus = self.corpus()
        folder = self.folder / "whoosh"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        schema = fields.Schema(
            number=fields.STORED, body=fields.TEXT(analyzer=analysis.StemmingAnalyzer())
        )
        started = time.perf_counter()
        writer = index.create_in(str(folder), schema).writer(limitmb=256)
        for one in corpus.pieces():
            writer.add_document(number=one.number, body=f"{one.title}\n{one.text}")
        writer.commit()
        return {
            "whoosh_s": time.perf_counter() - started,
            "disk_mb": inside.disk_mb(folder),
        }

    async def prepare(self) -> Figures:
        from qdrant_client import QdrantClient, models  # noqa: PLC0415
        from whoosh import index, qparser  # noqa: PLC0415

        self.ask()
        self._encoder = self.encoder()
        cosine = models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
        self._client = QdrantClient(":memory:")
        self._client.create_collection(inside.COLLECTION, cosine)
        started = time.perf_counter()
        pieces: Iterator[Piece] = iter(self.corpus().pieces())
        while batch := list(islice(pieces, 1000)):
            rows = encoded(self._encoder, [f"{one.title}\n{one.text}" for one in batch])
            self._client.upsert(
                inside.COLLECTION,
                [
                    models.PointStruct(
                        id=one.number, vector=row.tolist(), payload={"text": one.text}
                    )
                    for one, row in zip(batch, rows, strict=True)
                ],
            )
        seconds = time.perf_counter() - started
        opened = index.open_dir(str(self.folder / "whoosh"))
        self._searcher = opened.searcher()
        self._parser = qparser.QueryParser("body", opened.schema, group=qparser.OrGroup)
        questions = [one.text for round_ in self.rounds for one in round_] or [""]
        rows = encoded(self._encoder, questions, query=True)
        self._vectors = dict(zip(questions, rows, strict=True))
        for text in questions[:3]:
            self._search(text)
        return {"qdrant_s": seconds}

    async def measure(self, round_: int) -> Block:
        seconds: list[float] = []
        for one in self.rounds[round_][: int(self.options["peer_queries"])]:
            with stopwatch(seconds):
                found = self._search(one.text)
            assert found
        return Block(len(seconds), {"hybrid": seconds})

    def _search(self, text: str) -> list[int]:
        vector = self._vectors[text].tolist()
        dense = self._client.query_points(inside.COLLECTION, query=vector, limit=ARM_DEPTH).points
        sparse = self._searcher.search(self._parser.parse(text), limit=ARM_DEPTH)
        worth: dict[int, float] = defaultdict(float)
        for rank, point in enumerate(dense, 1):
            worth[int(point.id)] += 1 / (RANK_CONSTANT + rank)
        for rank, hit in enumerate(sparse, 1):
            worth[hit["number"]] += 1 / (RANK_CONSTANT + rank)
        return sorted(worth, key=lambda number: -worth[number])[:TOP_K]
