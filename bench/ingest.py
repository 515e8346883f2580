"""Documents through REST with the real encoder: how fast, and whether the encoder is kept busy.

Gateway, preprocess and retrieve as real processes. A block sends documents of `bench.corpus`, in
requests of --documents each from --clients at once, until --chunks chunks are durable. How busy the
encoder was is the time of its forward passes, as the service counts it, over the wall time.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from bench.corpus import DOCUMENT_CHUNKS, Corpus
from bench.harness import Block, Defaults, Finding, Run, Side, Work, stopwatch
from bench.harness.sides import Figures
from bench.harness.usage import settle
from bench.mesh import IngestMesh

SUMMARY = "documents through REST with the real encoder: chunks a second, how busy the encoder is"
QUICK = ("--chunks", "100", "--documents", "2", "--starts", "1", "--rounds", "1")
DEFAULTS = Defaults(starts=1, rounds=1)
SIDE = "ragmesh"
COLLECTION = "ingest"
_BATCH_SECONDS = "ragmesh_retrieve_encoder_batch_seconds_sum"
_MADE = 1_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=int, default=5_000, help="of a block")
    parser.add_argument("--documents", type=int, default=4, help="of a request")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--encoder", default="sentence-transformers", help="EMBEDDING_BACKEND")


def sides(options: argparse.Namespace, folder: Path) -> Sequence[Side]:
    plain = {
        "folder": str(folder),
        "chunks": options.chunks,
        "documents": options.documents,
        "clients": options.clients,
        "encoder": options.encoder,
    }
    return [Side(SIDE, "bench.ingest:Ingest", plain)]


def findings(run: Run, options: argparse.Namespace) -> Sequence[Finding]:
    busy = run.figure(SIDE, "encoder_busy")
    return [
        Finding("share of the time that the encoder is busy", busy, at_least=0.85),
        Finding("chunks a second", run.figure(SIDE, "chunks_per_s")),
    ]


class Ingest(Work):
    """One mesh."""

    async def prepare(self) -> Figures:
        self._mesh = IngestMesh(
            Path(mkdtemp(dir=self.options["folder"])) / "var",
            embedding_backend=str(self.options["encoder"]),
        )
        await asyncio.to_thread(self._mesh.start)
        self._documents = _documents(Corpus(self.seed, chunks=_MADE))
        async with self._mesh.client(timeout=300) as client:
            answer = await client.post("/v1/collections", json={"name": COLLECTION})
            assert answer.status_code == 201, answer.text
            body = {"documents": list(itertools.islice(self._documents, 1))}  # warm up
            answer = await client.post(f"/v1/collections/{COLLECTION}/documents", json=body)
            assert answer.status_code == 201, answer.text
        return {"settle_s": await settle(60)}

    async def measure(self, round_: int) -> Block:
        seconds: list[float] = []
        before = await self._encoded()
        started = time.perf_counter()
        chunks = await self._send(int(self.options["chunks"]), seconds)
        wall = time.perf_counter() - started
        busy = (await self._encoded() - before) / wall
        return Block(
            chunks, {"request": seconds}, {"chunks_per_s": chunks / wall, "encoder_busy": busy}
        )

    async def aclose(self) -> None:
        if hasattr(self, "_mesh"):
            await asyncio.to_thread(self._mesh.stop)

    async def _encoded(self) -> float:
        return await asyncio.to_thread(self._mesh.metric, "retrieve", _BATCH_SECONDS)

    async def _send(self, chunks: int, seconds: list[float]) -> int:
        """Send documents until so many chunks are durable; returns how many there are."""
        done = 0
        path = f"/v1/collections/{COLLECTION}/documents"

        async def one_client() -> None:
            nonlocal done
            async with self._mesh.client(timeout=900) as client:
                while done < chunks:
                    some = itertools.islice(self._documents, int(self.options["documents"]))
                    body = {"documents": list(some)}
                    with stopwatch(seconds):
                        answer = await client.post(path, json=body)
                    assert answer.status_code == 201, answer.text
                    done += sum(one["chunks"] for one in answer.json()["documents"])

        await asyncio.gather(*(one_client() for _ in range(int(self.options["clients"]))))
        return done


def _documents(corpus: Corpus) -> Iterator[Mapping[str, Any]]:
    """Texts of twenty pieces with a title."""
    pieces = corpus.pieces()
    while batch := list(itertools.islice(pieces, DOCUMENT_CHUNKS)):
        yield {
            "id": f"d{batch[0].number // DOCUMENT_CHUNKS}",
            "title": batch[0].title,
            "text": "\n\n".join(one.text for one in batch),
        }
