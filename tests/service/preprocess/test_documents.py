"""ProcessDocument over gRPC, with real worker processes."""

import asyncio
import hashlib
import json
import os
import signal

import grpc
import psutil
import pytest
from prometheus_client import REGISTRY

from ragmesh.preprocess.v1 import preprocess_pb2 as pb
from services.preprocess.adapters.processes import WorkerProcesses
from services.preprocess.worker import WorkerLimits
from services.runtime.errors import FailedPrecondition, RagmeshError
from services.runtime.status import error_from_rpc
from services.text.normalize import normalize
from tests.service.preprocess.client import Stub, process
from tests.service.preprocess.conftest import Serve
from tests.until import until

MARKDOWN = (
    "# 手引き\n\n## 経費\n\n経費は翌月5日までに申請してください。\n\n- ﾎﾟｰﾄは8000番\n".encode()
)


def tokenizer_file() -> bytes:
    """A small word tokenizer, as `tokenizer.json`."""
    return json.dumps(
        {
            "version": "1.0",
            "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
            "pre_tokenizer": {"type": "Whitespace"},
        }
    ).encode()


async def refused(stub: Stub, filename: str, data: bytes, **more: object) -> RagmeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await process(stub, filename, data, **more)  # type: ignore[arg-type]
    return error_from_rpc(caught.value)


def worker_pids() -> set[int]:
    """The parser processes below this test: children of its fork server. Other tests of the same
    run may have processes of their own below this one."""
    return {
        grandchild.pid
        for child in psutil.Process().children()
        if "forkserver" in " ".join(child.cmdline())
        for grandchild in child.children()
        if grandchild.status() != psutil.STATUS_ZOMBIE
    }


async def busy_worker() -> int:
    """The parser process, once it has worked for a moment: a fresh one has used no time yet."""
    (pid,) = worker_pids()
    await until(lambda: psutil.Process(pid).cpu_times().user > 0.2)
    return pid


async def test_a_document_comes_back_as_chunks(serve: Serve) -> None:
    async with serve() as stub:
        answer = await process(stub, "handbook.md", MARKDOWN)
    document = answer.document
    assert not answer.tokenizer_needed
    assert (document.format, document.title, document.language) == ("md", "手引き", "ja")
    assert (document.pages, document.characters) == (0, len(MARKDOWN.decode()))
    (chunk,) = answer.chunks
    assert chunk.heading == "手引き > 経費"
    assert chunk.text == MARKDOWN.decode()[chunk.start : chunk.end]
    assert "ﾎﾟｰﾄ" in chunk.text
    assert chunk.normalized_text == normalize(chunk.text)
    assert not chunk.HasField("page")


async def test_the_title_is_the_given_one_or_the_file_name(serve: Serve) -> None:
    async with serve() as stub:
        given = await process(stub, "a.md", MARKDOWN, title="Given")
        named = await process(stub, "notes.txt", b"Hello.")
    assert given.document.title == "Given"
    assert named.document.title == "notes.txt"


async def test_a_tokenizer_is_asked_for_once(serve: Serve) -> None:
    file = tokenizer_file()
    chunking = pb.Chunking(tokenizer_id=hashlib.sha256(file).hexdigest(), max_tokens=16)
    text = b"One two three four five. " * 40
    async with serve() as stub:
        first = await process(stub, "a.txt", text, chunking=chunking, tokenizer=file)
        second = await process(stub, "a.txt", text, chunking=chunking)
    assert first.tokenizer_needed
    assert not second.tokenizer_needed
    assert first.chunks == second.chunks
    assert {chunk.tokens for chunk in first.chunks} == {12}  # two sentences of five words and a dot


async def test_bad_tokenizers_are_refused_and_forgotten(serve: Serve) -> None:
    junk = b'{"not": "a tokenizer"}'
    junk_id = hashlib.sha256(junk).hexdigest()
    async with serve() as stub:
        for file, named in ((tokenizer_file(), "0" * 64), (junk, junk_id), (junk, junk_id)):
            chunking = pb.Chunking(tokenizer_id=named)
            error = await refused(stub, "a.txt", b"Hello.", chunking=chunking, tokenizer=file)
            assert error.reason == "TOKENIZER_INVALID"
        error = await refused(stub, "a.txt", b"x", chunking=pb.Chunking(tokenizer_id="../x"))
        assert error.reason == "TOKENIZER_INVALID"
        assert (await process(stub, "a.txt", b"Hello.")).chunks


@pytest.mark.parametrize(
    ("chunking", "field"),
    [
        (pb.Chunking(max_tokens=15), "chunking.max_tokens"),
        (pb.Chunking(max_tokens=8_193), "chunking.max_tokens"),
        (pb.Chunking(max_tokens=-1), "chunking.max_tokens"),
        (pb.Chunking(max_tokens=100, overlap_tokens=50), "chunking.overlap_tokens"),
        (pb.Chunking(overlap_tokens=-1), "chunking.overlap_tokens"),
    ],
)
async def test_bad_chunking_is_refused_before_the_upload(
    serve: Serve, chunking: pb.Chunking, field: str
) -> None:
    async with serve() as stub:
        error = await refused(stub, "a.txt", b"Hello.", chunking=chunking)
    assert (error.reason, error.field) == ("INVALID_CHUNKING", field)


@pytest.mark.parametrize(
    ("filename", "data", "reason"),
    [
        ("a.txt", b"", "EMPTY_DOCUMENT"),
        ("a.txt", b" \n\t ", "EMPTY_DOCUMENT"),
        ("a.pdf", b"%PDF-1.7 nothing more", "UNREADABLE_DOCUMENT"),
        ("a.csv", b"a,b", "UNSUPPORTED_FORMAT"),
    ],
)
async def test_refusals_carry_the_file_name(
    serve: Serve, filename: str, data: bytes, reason: str
) -> None:
    async with serve() as stub:
        error = await refused(stub, filename, data)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", reason)
    assert filename in error.message


async def test_a_document_over_the_limit_is_refused_while_it_arrives(serve: Serve) -> None:
    async with serve(max_document_bytes=200_000) as stub:
        error = await refused(stub, "big.txt", b"x" * 1_000_000)
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "DOCUMENT_TOO_LARGE")
    assert "big.txt" in error.message
    assert "0.2 MB" in error.message


async def test_time_is_limited_and_the_next_document_works(serve: Serve) -> None:
    deep = b"<div>" * 60_000 + b"text" + b"</div>" * 60_000
    async with serve(parse_seconds=1.0) as stub:
        error = await refused(stub, "deep.html", deep)
        assert (error.reason, "deep.html" in error.message) == ("PARSE_LIMIT", True)
        assert (await process(stub, "a.txt", b"Hello.")).chunks


async def test_memory_is_limited_and_the_next_document_works(serve: Serve) -> None:
    async with serve(parse_memory_bytes=150_000_000, parse_seconds=60.0) as stub:
        error = await refused(stub, "wide.txt", "文。".encode() * 7_000_000)
        assert error.reason == "PARSE_LIMIT"
        assert "memory" in error.message
        assert (await process(stub, "a.txt", b"Hello.")).chunks


async def test_a_killed_worker_is_one_clear_error(serve: Serve) -> None:
    deep = b"<div>" * 60_000 + b"text" + b"</div>" * 60_000
    async with serve() as stub:
        work = asyncio.create_task(refused(stub, "deep.html", deep))
        os.kill(await busy_worker(), signal.SIGSEGV)
        error = await work
        assert error.reason == "UNREADABLE_DOCUMENT"
        assert "deep.html" in error.message
        assert (await process(stub, "a.txt", b"Hello.")).chunks
        # One that dies while it is idle costs nobody anything.
        (pid,) = worker_pids()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in worker_pids())
        assert (await process(stub, "a.txt", b"Hello.")).chunks
    assert not worker_pids()


async def test_a_caller_who_leaves_stops_the_work(serve: Serve) -> None:
    deep = b"<div>" * 60_000 + b"text" + b"</div>" * 60_000
    async with serve() as stub:
        work = asyncio.create_task(process(stub, "deep.html", deep))
        before = await busy_worker()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        # The document's own time, of minutes, would not be over yet.
        answer = await asyncio.wait_for(process(stub, "a.txt", b"Hello."), 30.0)
        assert answer.chunks
        assert worker_pids() != {before}, "its worker was ended"


async def test_more_documents_than_places_are_shed(serve: Serve) -> None:
    async with serve(parse_workers=1, parse_queue=1) as stub:
        header = pb.ProcessDocumentRequest(
            header=pb.DocumentHeader(filename="a.txt", chunking=pb.Chunking())
        )
        open_calls = []
        for _ in range(2):
            call = stub.ProcessDocument()
            await call.write(header)
            await call.read()
            open_calls.append(call)
        error = await refused(stub, "b.txt", b"Hello.")
        assert (error.code, error.reason) == ("UNAVAILABLE", "PARSER_BUSY")
        assert error.retry_after
        for call in open_calls:
            call.cancel()
        assert await eventually_served(stub)


async def eventually_served(stub: Stub) -> bool:
    """Whether a place comes free."""
    async with asyncio.timeout(20):
        while True:
            try:
                return bool((await process(stub, "b.txt", b"Hello.")).chunks)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)


async def test_a_silent_upload_gives_its_place_back(serve: Serve) -> None:
    async with serve(upload_idle_seconds=0.2, parse_queue=0) as stub:
        call = stub.ProcessDocument()
        await call.write(pb.ProcessDocumentRequest(header=pb.DocumentHeader(filename="a.txt")))
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert error_from_rpc(caught.value).reason == "UPLOAD_STALLED"
        assert (await process(stub, "a.txt", b"Hello.")).chunks


async def test_documents_are_parsed_side_by_side_and_the_loop_stays_free(serve: Serve) -> None:
    text = ("これは長い文書の一文です。" * 40_000).encode()
    async with serve(parse_workers=2) as stub:
        many = asyncio.gather(*(process(stub, f"{name}.txt", text) for name in "abcd"))
        answered = 0
        while not many.done():
            await stub.GetServerInfo(pb.GetServerInfoRequest())
            answered += 1
            await asyncio.sleep(0.02)
        answers = await many
    assert all(answer.chunks == answers[0].chunks for answer in answers)
    assert answered > 2 * len(answers), "a loop that waits answers once a document at most"


async def test_server_info(serve: Serve) -> None:
    async with serve() as stub:
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.version
    assert "pdfium" in info.backends["parser"]


async def test_documents_are_counted_by_format_and_outcome(serve: Serve) -> None:
    def counted(format_name: str, outcome: str) -> float:
        labels = {"format": format_name, "outcome": outcome}
        return REGISTRY.get_sample_value("ragmesh_preprocess_documents_total", labels) or 0.0

    before = counted("md", "ok"), counted("txt", "EMPTY_DOCUMENT")
    async with serve() as stub:
        await process(stub, "a.md", MARKDOWN)
        await refused(stub, "a.txt", b" ")
    assert (counted("md", "ok"), counted("txt", "EMPTY_DOCUMENT")) == (before[0] + 1, before[1] + 1)


async def test_workers_that_cannot_start_say_so() -> None:
    nonsense = WorkerLimits(memory_bytes=1 << 70)
    workers = WorkerProcesses(workers=1, limits=nonsense, seconds=1.0)
    try:
        with pytest.raises(FailedPrecondition) as caught:
            await workers.ready()
        assert caught.value.reason == "PARSER_NOT_STARTED"
    finally:
        await workers.aclose()
