"""Collections into files, out of files, and made anew: what goes on after a failure that passes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any
from urllib.parse import quote

from cli.api import Api, ApiError, told
from cli.console import Failure
from cli.exports import ExportWriter, read_records
from gateway import records

BATCH_BYTES = 8 * 1024 * 1024
"""Records that go in one call; a larger document goes alone."""
BATCH_DOCUMENTS = 200
_IN_MEMORY_BYTES = 2 * BATCH_BYTES
NDJSON = {"content-type": "application/x-ndjson"}

Tell = Callable[[int, int], None]
"""How many documents of how many are done."""


def path_of(collection: str, rest: str = "") -> str:
    return f"/v1/collections/{quote(collection, safe='')}{rest}"


# Export


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file holds."""

    documents: int
    chunks: int
    bytes: int
    everything: bool
    """Whether the token reads everything in the tenant, so that nothing can be missing."""
    resumed_after: int
    """Documents that an earlier run had written."""


def export_collection(api: Api, collection: str, path: Path, tell: Tell) -> Exported:
    """Write a collection into a file, going on with what an earlier run left of it.

    Raises:
        Failure: the mesh refuses or stays away; the file exists.
    """
    with ExportWriter(path) as file:
        resumed = file.mark.documents
        attempt = 0
        while True:
            before = file.documents
            try:
                if _stream(api, collection, file, tell):
                    break
                raise ApiError(0, f"The answer of {api.url} broke off.", "no_answer")
            except ApiError as error:
                file.rewind()
                if error.code == "collection_changed":
                    resumed = 0
                    file.restart()
                    continue
                attempt = 1 if file.documents > before else attempt + 1
                api.pause(attempt, error)
        done = file.finish()
        everything = bool((file.header or {}).get("everything"))
    return Exported(done.documents, done.chunks, done.offset, everything, resumed)


def _stream(api: Api, collection: str, file: ExportWriter, tell: Tell) -> bool:
    """Write what one answer holds; says whether it was whole."""
    params = {}
    if file.header is not None:
        params = {"after": file.mark.last, "generation": str(file.header["generation"])}
    total = int((file.header or {}).get("documents", 0))
    for line in api.lines(path_of(collection, "/export"), params):
        try:
            if line.startswith(b'{"error":'):
                raise told(json.loads(line))
            record = records.load(line)
            if record["type"] == records.END:
                return True
            if record["type"] == records.HEADER:
                total = int(record["documents"])
                if file.header is not None:
                    continue
            if file.write(record, line + b"\n"):
                tell(file.documents, total)
        except (records.RecordError, KeyError, TypeError, ValueError) as error:
            raise ApiError(0, f"The answer of {api.url} is no export.", "no_answer") from error
    return False


# Import


@dataclass(slots=True)
class Imported:
    """What became of a file's documents."""

    indexed: int = 0
    replaced: int = 0
    unchanged: int = 0
    embedded_chunks: int = 0


@dataclass(slots=True)
class _Batch:
    """Records of whole documents, spooled to disk when they are many."""

    versions: list[dict[str, str]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    spool: Any = field(default_factory=lambda: SpooledTemporaryFile(_IN_MEMORY_BYTES))  # noqa: SIM115

    def add(self, record: dict[str, Any], line: bytes) -> None:
        if record["type"] == records.DOCUMENT:
            version = {"id": record["id"], "content_hash": record["content_hash"]}
            self.versions.append(version)
            self.spans.append((self.spool.tell(), 0))
        self.spool.write(line)
        self.spans[-1] = (self.spans[-1][0], self.spool.tell())

    @property
    def full(self) -> bool:
        return self.spool.tell() >= BATCH_BYTES or len(self.versions) >= BATCH_DOCUMENTS


class _Body:
    """The records of some documents as a request's body, readable more than once."""

    def __init__(self, header: bytes, batch: _Batch, wanted: list[int]) -> None:
        self._header = header
        self._batch = batch
        self._wanted = wanted

    def __iter__(self) -> Iterator[bytes]:
        yield self._header
        spool = self._batch.spool
        for number in self._wanted:
            start, end = self._batch.spans[number]
            spool.seek(start)
            while start < end:
                piece = spool.read(min(end - start, 256 * 1024))
                start += len(piece)
                yield piece


def check_file(path: Path) -> dict[str, Any]:
    """Read a file to its end; returns its header with its counts.

    Raises:
        Failure: it is damaged, or not whole.
    """
    header: dict[str, Any] = {}
    for record, _ in read_records(path):
        if record["type"] == records.HEADER:
            header = record
            if record.get("format") != records.FORMAT or record["version"] > records.VERSION:
                raise Failure(
                    f"{path} is of a format that this version does not read.",
                    code="format_unsupported",
                )
        elif record["type"] == records.END:
            header = {**header, "documents": record["documents"], "chunks": record["chunks"]}
    return header


def import_collection(api: Api, collection: str, path: Path, tell: Tell, total: int) -> Imported:
    """Bring a file's documents into a collection; those that are there are not sent.

    Raises:
        Failure: the mesh refuses or stays away.
    """
    done = Imported()
    header = b""
    batch = _Batch()
    try:
        for record, line in read_records(path):
            kind = record["type"]
            if kind == records.HEADER:
                header = line
                continue
            if kind == records.END or (kind == records.DOCUMENT and batch.full):
                _send(api, collection, header, batch, done)
                tell(done.indexed + done.replaced + done.unchanged, total)
                batch.spool.close()
                batch = _Batch()
            if kind != records.END:
                batch.add(record, line)
    finally:
        batch.spool.close()
    return done


def _send(api: Api, collection: str, header: bytes, batch: _Batch, done: Imported) -> None:
    if not batch.versions:
        return
    asked = {"documents": batch.versions}
    answer = api.call_again("POST", path_of(collection, "/unchanged"), json=asked)
    there = {one["id"] for one in answer["unchanged"]}
    wanted = [n for n, one in enumerate(batch.versions) if one["id"] not in there]
    done.unchanged += len(batch.versions) - len(wanted)
    if not wanted:
        return
    answer = api.call_again(
        "POST",
        path_of(collection, "/import"),
        content=_Body(header, batch, wanted),
        headers=NDJSON,
    )
    for result in answer["documents"]:
        setattr(done, result["status"], getattr(done, result["status"]) + 1)
    done.embedded_chunks += answer["embedded_chunks"]


def ensure_collection_like(api: Api, name: str, header: dict[str, Any]) -> dict[str, Any]:
    """The collection to import into, made as the exported one was if it is not there."""
    try:
        return api.call_again("GET", path_of(name))
    except ApiError as error:
        if error.code != "collection_not_found":
            raise
    body = {"name": name, "description": header.get("description") or ""}
    sizes = {key: header[key] for key in ("chunk_tokens", "chunk_overlap") if header.get(key)}
    try:
        return api.call("POST", "/v1/collections", json={**body, **sizes})
    except ApiError as error:
        if not error.code.startswith("chunk_"):
            raise
    # The running encoder reads less than the chunks hold: later documents are cut to fit it.
    return api.call("POST", "/v1/collections", json=body)


# Reindex


def reindex_collection(api: Api, collection: str, tell: Tell, *, force: bool) -> dict[str, Any]:
    """Have a collection made anew; returns what the mesh says at the end.

    Raises:
        Failure: the mesh refuses or stays away.
    """
    attempt = reached = 0
    while True:
        try:
            for event, data in api.events(path_of(collection, "/reindex"), {"force": force}):
                said: dict[str, Any] = json.loads(data)
                if event == "error":
                    raise told(said)
                if event == "done":
                    return said
                tell(said["documents"], said["total_documents"])
                if said["documents"] > reached:
                    reached, attempt = said["documents"], 0
            raise ApiError(0, f"The answer of {api.url} broke off.", "no_answer")
        except ApiError as error:
            attempt += 1
            # An earlier call may be ending still, in the moment after it broke off.
            if error.code == "reindex_running" and attempt > 1:
                error.http_status = 503
            api.pause(attempt, error)


def summary(result: Exported | Imported) -> dict[str, Any]:
    """For ``--json``."""
    return asdict(result)
