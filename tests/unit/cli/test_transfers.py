"""Export files and imports: what a file holds, what a broken transfer goes on with."""

import gzip
import json
from pathlib import Path

import httpx
import pytest

from cli import api as api_module
from cli import exports
from cli.api import ApiError
from cli.console import Failure
from cli.exports import ExportWriter, read_records
from cli.transfers import (
    BATCH_DOCUMENTS,
    check_file,
    ensure_collection_like,
    export_collection,
    import_collection,
    reindex_collection,
)
from gateway import records
from tests.unit.cli.fake_mesh import FakeMesh


def silent(*_: object) -> None:
    """Tells nobody."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member a document, and no pauses."""
    monkeypatch.setattr(exports, "MEMBER_BYTES", 1)
    monkeypatch.setattr(api_module, "LONGEST_PAUSE", 0.0)


def filled(documents: int = 5) -> FakeMesh:
    mesh = FakeMesh()
    for number in range(documents):
        mesh.put("notes", f"d{number}", "\n".join(f"line {n}\u2028" for n in range(number + 1)))
    return mesh


def texts(mesh: FakeMesh, collection: str) -> dict[str, str]:
    return {id: one["text"] for id, one in mesh.collections[collection].items()}


def test_a_file_holds_what_was_exported(tmp_path: Path) -> None:
    mesh, path = filled(), tmp_path / "notes.jsonl.gz"
    done = export_collection(mesh.api(), "notes", path, silent)
    assert (done.documents, done.chunks, done.resumed_after) == (5, 15, 0)
    assert done.bytes == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    # Any tool reads it.
    lines = gzip.decompress(path.read_bytes()).split(b"\n")[:-1]
    assert json.loads(lines[0])["format"] == "ragmesh-collection"
    assert json.loads(lines[-1])["documents"] == 5
    assert [record for record, _ in read_records(path)] == [records.load(one) for one in lines]
    header = check_file(path)
    assert ensure_collection_like(mesh.api(), "copy", header)["name"] == "copy"
    brought = import_collection(mesh.api(), "copy", path, silent, 5)
    assert (brought.indexed, brought.embedded_chunks) == (5, 0)
    assert texts(mesh, "copy") == texts(mesh, "notes")


@pytest.mark.parametrize("cut", range(14))
def test_an_export_that_breaks_off_goes_on(tmp_path: Path, cut: int) -> None:
    mesh, path = filled(), tmp_path / "f.gz"
    mesh.cut_after = cut
    export_collection(mesh.api(), "notes", path, silent)
    whole = tmp_path / "whole.gz"
    export_collection(filled().api(), "notes", whole, silent)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.7, 0.95, 1.0])
def test_another_run_takes_up_what_a_dead_one_left(tmp_path: Path, share: float) -> None:
    mesh, whole = filled(9), tmp_path / "whole.gz"
    export_collection(mesh.api(), "notes", whole, silent)
    data = whole.read_bytes()
    part = tmp_path / "f.gz.part"
    part.write_bytes(data[: int(len(data) * share)])
    done = export_collection(mesh.api(), "notes", tmp_path / "f.gz", silent)
    assert (tmp_path / "f.gz").read_bytes() == data
    assert (done.resumed_after > 0) == (share > 0.2)
    assert not part.exists()


def test_damage_in_what_was_left_is_written_again(tmp_path: Path) -> None:
    mesh, whole = filled(9), tmp_path / "whole.gz"
    export_collection(mesh.api(), "notes", whole, silent)
    data = bytearray(whole.read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "f.gz.part").write_bytes(data)
    export_collection(mesh.api(), "notes", tmp_path / "f.gz", silent)
    assert (tmp_path / "f.gz").read_bytes() == whole.read_bytes()


def test_another_collection_of_the_name_is_exported_from_the_beginning(tmp_path: Path) -> None:
    mesh, path = filled(), tmp_path / "f.gz"
    mesh.refuse = lambda _: httpx.Response(400, json={"error": {"message": "no", "code": "x"}})
    with ExportWriter(path) as file:
        for line in list(mesh._lines("notes", ""))[:3]:
            file.write(records.load(line), line)
    mesh.refuse = lambda _: None
    mesh.generation = "g-2"
    mesh.collections["notes"].clear()
    mesh.put("notes", "a", "only")
    done = export_collection(mesh.api(), "notes", path, silent)
    assert (done.documents, done.resumed_after) == (1, 0)
    assert check_file(path)["generation"] == "g-2"


def test_a_mesh_that_stays_away_ends_the_export(tmp_path: Path) -> None:
    mesh = filled()
    busy = {"error": {"message": "down", "type": "server_error", "code": "service_unavailable"}}
    answers = iter([None])
    mesh.cut_after = 5
    mesh.refuse = lambda _: next(answers, httpx.Response(503, json=busy))
    with pytest.raises(ApiError) as caught:
        export_collection(mesh.api(), "notes", tmp_path / "f.gz", silent)
    assert caught.value.code == "service_unavailable"
    assert (tmp_path / "f.gz.part").exists()
    assert not (tmp_path / "f.gz").exists()


def test_a_document_that_changes_under_the_export_is_asked_for_again(tmp_path: Path) -> None:
    mesh = filled(2)
    error = {"error": {"message": "m", "type": "conflict_error", "code": "document_changed"}}
    first = [*list(mesh._lines("notes", ""))[:3], json.dumps(error).encode() + b"\n"]
    answers = iter([httpx.Response(200, content=b"".join(first))])
    mesh.refuse = lambda _: next(answers, None)
    assert export_collection(mesh.api(), "notes", tmp_path / "f.gz", silent).documents == 2


def test_a_file_is_not_overwritten_and_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "f.gz"
    with ExportWriter(path), pytest.raises(Failure, match="Another export"):
        ExportWriter(path)
    path.touch()
    with pytest.raises(Failure, match="exists already"):
        ExportWriter(path)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda lines: lines[:-1], "file_incomplete"),
        (lambda lines: [*lines[:3], *lines[4:]], "file_damaged"),
        (lambda lines: [*lines[:1], *lines[3:]], "file_damaged"),
        (lambda lines: lines[1:], "file_damaged"),
        (lambda lines: [*lines, lines[-1]], "file_damaged"),
        (lambda lines: [lines[0].replace(b"words", b"wards"), *lines[1:]], "file_damaged"),
        (lambda lines: [b'{"type":"header"}\n', *lines[1:]], "file_damaged"),
        (lambda lines: [b"\xff\n", *lines[1:]], "file_damaged"),
        (lambda lines: [], "file_incomplete"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_sent(tmp_path: Path, damage, code) -> None:
    lines = list(filled()._lines("notes", ""))
    lines[-1] = records.dump({"type": "end", "documents": 5, "chunks": 15})
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(b"".join(damage(lines))) if damage(lines) else b"")
    with pytest.raises(Failure) as caught:
        check_file(path)
    assert caught.value.code == code


def test_a_file_that_is_no_gzip_or_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(Failure) as caught:
        check_file(path)
    assert caught.value.code == "file_damaged"
    header = {"type": "header", "format": records.FORMAT, "version": 2}
    path.write_bytes(gzip.compress(records.dump(header)))
    with pytest.raises(Failure) as caught:
        check_file(path)
    assert caught.value.code == "format_unsupported"


def test_an_import_that_breaks_off_sends_only_what_is_missing(tmp_path: Path) -> None:
    count = 2 * BATCH_DOCUMENTS + 50
    mesh, path = FakeMesh(), tmp_path / "f.gz"
    for number in range(count):
        mesh.put("notes", f"d{number:04}", f"text {number}")
    export_collection(mesh.api(), "notes", path, silent)
    other = FakeMesh(encoder="words@2", collections={"copy": {}})
    gate = iter([None] * 3)  # one batch gets through, the next one's look too
    gone = httpx.Response(403, json={"error": {"message": "no", "code": "token_expired"}})
    other.refuse = lambda _: next(gate, gone)
    with pytest.raises(ApiError):
        import_collection(other.api(), "copy", path, silent, count)
    assert len(other.collections["copy"]) == BATCH_DOCUMENTS
    other.refuse = lambda _: None
    done = import_collection(other.api(), "copy", path, silent, count)
    assert (done.unchanged, done.indexed) == (BATCH_DOCUMENTS, count - BATCH_DOCUMENTS)
    assert done.embedded_chunks == count - BATCH_DOCUMENTS
    assert texts(other, "copy") == texts(mesh, "notes")


def test_a_batch_is_sent_again_whole_after_what_passes(tmp_path: Path) -> None:
    mesh, path = filled(), tmp_path / "f.gz"
    export_collection(mesh.api(), "notes", path, silent)
    other = FakeMesh(collections={"copy": {}})
    busy = httpx.Response(503, json={"error": {"message": "down", "code": "unavailable"}})
    gate = iter([None, busy])
    other.refuse = lambda request: (request.read(), next(gate, None))[1]
    assert import_collection(other.api(), "copy", path, silent, 5).indexed == 5
    assert texts(other, "copy") == texts(mesh, "notes")


def test_reindexing_goes_on_after_the_stream_breaks_off() -> None:
    def event(name: str, **data: object) -> str:
        return f"event: {name}\ndata: {json.dumps(data)}\n\n"

    streams = [
        event("progress", documents=1, total_documents=3),
        event("error", error={"message": "m", "type": "server_error", "code": "unavailable"}),
        event("progress", documents=2, total_documents=3)
        + event("done", documents=3, total_documents=3, reindexed=True),
    ]
    told = []
    answers = iter(streams)
    mesh = FakeMesh(collections={"notes": {}})
    mesh.refuse = lambda _: httpx.Response(
        200, text=next(answers), headers={"content-type": "text/event-stream"}
    )
    done = reindex_collection(
        mesh.api(), "notes", lambda *progress: told.append(progress), force=False
    )
    assert done["reindexed"]
    assert told == [(1, 3), (2, 3)]
