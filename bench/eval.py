"""``python -m bench.eval``: retrieval quality through the real service.

Starts a retrieve service of its own on free ports with empty data, indexes each set with one chunk
per document over gRPC, waits until the collection is calibrated, asks every question in every mode,
and prints nDCG@10, Recall@100 and MRR@10 with the latency of a search. Two references stand beside
the modes: plain reciprocal rank fusion (k = 60) of the two arms' first hundred, and for English
sets bm25s. Where a reranker is configured (RERANKER_BACKEND and the rest, docs/reranking.md) hybrid
search is measured with it too, on as much time as it takes. At the end all sets together go into
one collection and are asked again. Sets lie in folders with corpus.jsonl, queries.jsonl and
qrels.tsv.

Vectors are kept in ``var/eval-cache``: embedding twenty thousand passages takes longer than all
the rest.
"""

import argparse
import asyncio
import hashlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import bm25s
import grpc
import Stemmer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ragmesh.retrieve.v1 import retrieve_pb2 as pb
from ragmesh.retrieve.v1 import retrieve_pb2_grpc as pb_grpc
from services.text.language import detect_language
from services.text.normalize import normalize

MODES = {
    "dense": pb.SEARCH_MODE_DENSE,
    "sparse": pb.SEARCH_MODE_SPARSE,
    "hybrid": pb.SEARCH_MODE_HYBRID,
}
RERANKED = "hybrid+rerank"
RRF = "plain rrf"
BM25S = "bm25s"
RANK_CONSTANT = 60
MIXED = "all-sets"
CALIBRATION_SECONDS = 300.0
RERANK_SECONDS = 600.0
FIRST_CALIBRATED = 30
ROOT = Path(__file__).parent.parent
METADATA = (("x-ragmesh-tenant", hashlib.sha256(b"eval").hexdigest()),)
DEPTH = 100
START_SECONDS = 120.0
IN_FLIGHT = 4
RETRIEVE_OFFSET = 2


@dataclass(frozen=True)
class RetrievalSet:
    """A corpus, questions, and which documents answer them (grades above 0)."""

    name: str
    corpus: Sequence[tuple[str, str, str]]
    """Id, title, text."""
    queries: Sequence[tuple[str, str]]
    relevant: Mapping[str, Mapping[str, int]]

    @property
    def language(self) -> str:
        """That of its first question."""
        return detect_language(self.queries[0][1])


@dataclass(frozen=True)
class Quality:
    """One line of the table; times in milliseconds."""

    set: str
    mode: str
    queries: int
    ndcg_10: float
    recall_100: float
    mrr_10: float
    p50_ms: float
    p99_ms: float


def read_set(folder: Path, limit: int) -> RetrievalSet:
    """Read a set; documents without a text are skipped."""
    corpus = [
        (one["_id"], one.get("title", ""), one["text"])
        for one in _json_lines(folder / "corpus.jsonl")
        if one["text"].strip()
    ]
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    lines = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for line in lines:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant[query][document] = int(grade)
    queries = [
        (one["_id"], one["text"])
        for one in _json_lines(folder / "queries.jsonl")
        if one["_id"] in relevant
    ]
    return RetrievalSet(folder.name, corpus, queries[: limit or None], relevant)


def _json_lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


@contextmanager
def retrieve_service(
    cache: Path, analyzer: str, *, sparse: str = "engine", store: str = "edge://"
) -> Iterator[str]:
    """A retrieve process with empty data and vectors kept in `cache`; yields its address."""
    base = _free_base()
    with tempfile.TemporaryDirectory(prefix="ragmesh-eval-") as data:
        environment = {
            **os.environ,  # noqa: TID251  handed on to the child, not read
            "RAGMESH_DATA": data,
            "RAGMESH_GRPC_BASE": str(base),
            "RAGMESH_METRICS_BASE": "0",
            "RAGMESH_LOG_LEVEL": "WARNING",
            "RAGMESH_EMBEDDING_BACKEND": "cached",
            "RAGMESH_ANALYZER": analyzer,
            "RAGMESH_SPARSE_BACKEND": sparse,
            "RAGMESH_VECTOR_URL": store,
            "RAGMESH_RERANK_BUDGET": str(RERANK_SECONDS),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.service", str(cache)],
            env=environment,
            cwd=ROOT,
        )
        try:
            yield f"127.0.0.1:{base + RETRIEVE_OFFSET}"
        finally:
            process.terminate()
            process.wait(30)


def _free_base() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1]) - RETRIEVE_OFFSET


async def wait_until_serving(channel: grpc.aio.Channel) -> None:
    """Return once the service's health says SERVING."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        except grpc.aio.AioRpcError:
            answer = None
        if answer and answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
        await asyncio.sleep(0.2)
    raise SystemExit("The retrieve service did not start.")


async def index(
    stub: pb_grpc.RetrieveServiceStub, sets: Sequence[RetrievalSet], collection: str
) -> pb.Collection:
    """Index the corpora of sets, and return the collection once it is calibrated."""
    await stub.CreateCollection(pb.CreateCollectionRequest(name=collection), metadata=METADATA)
    started = time.monotonic()
    total = sum(len(one.corpus) for one in sets)
    done = 0
    async for _ in stub.IndexDocuments(_frames(sets, collection), metadata=METADATA):
        done += 1
        if sys.stderr.isatty() and done % 50 == 0:
            print(f"\r{collection}: {done}/{total}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if done != total:
        raise SystemExit(f"{collection}: {done} of {total} documents were indexed.")
    seconds = time.monotonic() - started
    request = pb.GetCollectionRequest(name=collection)
    while True:
        found = (await stub.GetCollection(request, metadata=METADATA)).collection
        if found.calibration.chunks == found.chunks or found.chunks < FIRST_CALIBRATED:
            break
        if time.monotonic() - started - seconds > CALIBRATION_SECONDS:
            raise SystemExit(f"{collection}: it was not calibrated.")
        await asyncio.sleep(0.2)
    measured = ", ".join(
        f"{one.language} dense {one.weights.dense:.1f} of {one.questions} questions (gain: dense "
        f"{one.dense:.3f}, sparse {one.sparse:.3f}, both {one.hybrid:.3f})"
        for one in found.calibration.languages
    )
    print(f"{collection}: {total} documents in {seconds:.0f} s, {found.analyzer}, calibrated in "
          f"{found.calibration.seconds:.1f} s: {measured or 'nothing'}", flush=True)  # fmt: skip
    return found


async def _frames(
    sets: Sequence[RetrievalSet], collection: str
) -> AsyncIterator[pb.IndexDocumentsRequest]:
    yield pb.IndexDocumentsRequest(header=pb.IndexHeader(collection=collection))
    corpora = ((one.name, *document) for one in sets for document in one.corpus)
    for name, document_id, title, text in corpora:
        normalized = normalize(text)
        document = pb.IndexDocument(
            id=f"{name}/{document_id}",
            title=normalize(title),
            content_hash=hashlib.sha256(f"{title}\0{text}".encode()).hexdigest(),
            chunk_count=1,
        )
        chunk = pb.IndexChunk(
            index=0,
            text=text,
            normalized_text=normalized,
            language=detect_language(normalized),
        )
        yield pb.IndexDocumentsRequest(document=document)
        yield pb.IndexDocumentsRequest(chunks=pb.IndexChunks(chunks=[chunk]))


Runs = Sequence[Sequence[str]]


async def ask(
    stub: pb_grpc.RetrieveServiceStub, one: RetrievalSet, mode: str, collection: str
) -> tuple[Runs, Sequence[float]]:
    """Ask every question of a set in one mode: documents found, and seconds taken."""
    slots = asyncio.Semaphore(IN_FLIGHT)
    seconds: list[float] = []
    without: list[str] = []
    rerank = mode == RERANKED

    async def search(text: str) -> list[str]:
        request = pb.SearchRequest(
            collection=collection,
            query=normalize(text),
            mode=MODES["hybrid" if rerank else mode],
            top_k=DEPTH,
            rerank=rerank,
        )
        async with slots:
            started = time.monotonic()
            answer = await stub.Search(request, metadata=METADATA)
            seconds.append(time.monotonic() - started)
        if rerank and answer.rerank.status != pb.RERANK_STATUS_APPLIED:
            without.append(answer.rerank.reason)
        # In a collection of several sets a hit of another set counts as a wrong one.
        return [hit.passage.document_id.removeprefix(f"{one.name}/") for hit in answer.hits]

    runs = await asyncio.gather(*(search(text) for _, text in one.queries))
    if without:
        reasons = ", ".join(f"{reason} {without.count(reason)}" for reason in sorted(set(without)))
        print(f"{one.name}: not reranked were {len(without)} of {len(runs)}: {reasons}", flush=True)
    return runs, seconds


def judge(one: RetrievalSet, mode: str, runs: Runs, seconds: Sequence[float], name: str) -> Quality:
    """How good the runs of a set's questions are."""
    grades = [one.relevant[query] for query, _ in one.queries]
    pairs = list(zip(runs, grades, strict=True))
    cuts = quantiles(seconds, n=100) if len(seconds) > 1 else [0.0] * 99
    return Quality(
        name, mode, len(pairs),
        round(fmean(ndcg(run, grade, 10) for run, grade in pairs), 4),
        round(fmean(recall(run, grade, DEPTH) for run, grade in pairs), 4),
        round(fmean(reciprocal_rank(run, grade, 10) for run, grade in pairs), 4),
        round(cuts[49] * 1000, 1), round(cuts[98] * 1000, 1),
    )  # fmt: skip


def plain_rrf(first: Runs, second: Runs) -> Runs:
    """Reciprocal rank fusion with equal weights: the reference that hybrid is held to."""
    fused = []
    for runs in zip(first, second, strict=True):
        worth: dict[str, float] = defaultdict(float)
        for run in runs:
            for rank, document in enumerate(run, 1):
                worth[document] += 1 / (RANK_CONSTANT + rank)
        fused.append(sorted(worth, key=lambda document: -worth[document])[:DEPTH])
    return fused


def bm25s_runs(one: RetrievalSet) -> Runs:
    """What bm25s finds, with its own tokens, stop words and Porter2 stems."""
    texts = [f"{title}\n{text}" for _, title, text in one.corpus]
    stemmer = Stemmer.Stemmer("english").stemWords
    options = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    retriever = bm25s.BM25(k1=1.2, b=0.75)
    retriever.index(bm25s.tokenize(texts, **options), show_progress=False)
    asked = bm25s.tokenize([text for _, text in one.queries], **options)
    places, _ = retriever.retrieve(asked, k=min(DEPTH, len(texts)), show_progress=False)
    return [[one.corpus[place][0] for place in row] for row in places]


def ndcg(run: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """Normalised discounted cumulative gain, with the grade as gain."""
    gains = [grades.get(document, 0) for document in run[:depth]]
    ideal = sorted(grades.values(), reverse=True)[:depth]
    return _discounted(gains) / _discounted(ideal)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def recall(run: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """Share of the relevant documents that were found."""
    return len(grades.keys() & set(run[:depth])) / len(grades)


def reciprocal_rank(run: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """1 / rank of the first relevant document; 0 when there is none."""
    return next((1 / place for place, one in enumerate(run[:depth], 1) if one in grades), 0.0)


def show(row: Quality) -> None:
    print(f"{row.set:<30}{row.mode:<14}{row.queries:>8}{row.ndcg_10:>9.4f}{row.recall_100:>8.4f}"
          f"{row.mrr_10:>8.4f}{row.p50_ms:>8.1f}{row.p99_ms:>8.1f}", flush=True)  # fmt: skip


async def evaluate_set(
    stub: pb_grpc.RetrieveServiceStub, one: RetrievalSet, collection: str, name: str
) -> list[Quality]:
    """One set in every mode, with its references."""
    rows: list[Quality] = []
    runs: dict[str, Runs] = {}
    models = (await stub.ListModels(pb.ListModelsRequest(), metadata=METADATA)).models
    reranker = any(model.kind == pb.MODEL_KIND_RERANKER for model in models)
    for mode in (*MODES, *([RERANKED] if reranker else ())):
        runs[mode], seconds = await ask(stub, one, mode, collection)
        rows.append(judge(one, mode, runs[mode], seconds, name))
    rows.append(judge(one, RRF, plain_rrf(runs["dense"], runs["sparse"]), (), name))
    if one.language == "en" and collection == one.name:
        rows.append(judge(one, BM25S, bm25s_runs(one), (), name))
    for row in rows:
        show(row)
    return rows


async def evaluate_sample(address: str, one: RetrievalSet) -> list[Quality]:
    """One set, in a collection of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        await wait_until_serving(channel)
        stub = pb_grpc.RetrieveServiceStub(channel)
        await index(stub, [one], one.name)
        return await evaluate_set(stub, one, one.name, one.name)


async def evaluate(
    address: str, folders: Sequence[Path], limit: int, *, mixed: bool = True
) -> list[Quality]:
    """Every set in a collection of its own, then all of them in one."""
    rows: list[Quality] = []
    print(f"{'set':<30}{'mode':<14}{'queries':>8}{'nDCG@10':>9}{'R@100':>8}{'MRR@10':>8}"
          f"{'p50 ms':>8}{'p99 ms':>8}")  # fmt: skip
    async with grpc.aio.insecure_channel(address) as channel:
        await wait_until_serving(channel)
        stub = pb_grpc.RetrieveServiceStub(channel)
        sets = [read_set(folder, limit) for folder in folders]
        for one in sets:
            await index(stub, [one], one.name)
            rows += await evaluate_set(stub, one, one.name, one.name)
        if mixed and len(sets) > 1:
            await index(stub, sets, MIXED)
            for one in sets:
                rows += await evaluate_set(stub, one, MIXED, f"{one.name} in {MIXED}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Retrieval quality through the real service.")
    parser.add_argument("folders", nargs="*", type=Path, help="folders of sets, or one of them")
    parser.add_argument("--set", action="append", default=[], help="only sets of this name")
    parser.add_argument("--limit", type=int, default=0, help="at most so many queries of a set")
    parser.add_argument("--no-mixed", action="store_true", help="not all sets in one collection")
    parser.add_argument("--analyzer", default="auto", help="auto, morphemes or terms")
    parser.add_argument("--sparse", default="engine", help="a SPARSE_BACKEND")
    parser.add_argument("--store", default="edge://", help="a VECTOR_URL")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "var" / "eval-cache", help="where vectors are kept"
    )
    parser.add_argument("--json", type=Path, help="write the rows here as JSON")
    arguments = parser.parse_args()
    folders = sorted(
        found.parent
        for folder in arguments.folders
        if folder.is_dir()
        for found in (*folder.glob("corpus.jsonl"), *folder.glob("*/corpus.jsonl"))
    )
    if arguments.set:
        folders = [folder for folder in folders if folder.name in arguments.set]
    if not folders:
        raise SystemExit("No retrieval sets found; name a folder, as in: make eval EVAL_DATA=DIR")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service ends too
    with retrieve_service(
        arguments.cache.resolve(),
        arguments.analyzer,
        sparse=arguments.sparse,
        store=arguments.store,
    ) as address:
        rows = asyncio.run(
            evaluate(address, folders, arguments.limit, mixed=not arguments.no_mixed)
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
