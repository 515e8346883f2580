"""A folder into a mesh that is a fake; what changes, moves, goes and stays."""

import json
import os
import unicodedata
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cli import api as api_module
from cli.__main__ import app
from cli.commands.sync import open_source
from cli.console import Failure
from cli.syncing.cache import Cache
from cli.syncing.entries import MAX_BYTES, Entry, Known, Skipped
from cli.syncing.folder import FolderSource
from cli.syncing.run import Options, Report, Sync
from tests.unit.cli.fake_mesh import FakeMesh


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "LONGEST_PAUSE", 0.0)


class Folder:
    """A folder, a mesh, and syncs of the one into the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mesh = FakeMesh()
        self.known: dict[str, Known] = {}

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.root / name.replace("__", "/")
            path = path.with_name(f"{path.name}.md")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            os.utime(path, (1_000_000_000, 1_000_000_000))  # long settled

    def sync(self, root: Path | None = None, **options) -> Report:
        source = FolderSource(root or self.root, max_bytes=1000, alias=options.pop("alias", ""))
        running = Sync(
            self.mesh.api(), source, "notes", options=Options(**options), known=self.known,
            tell=lambda *_: None,
        )  # fmt: skip
        report = running.run()
        if not options.get("dry_run"):
            self.known = running.seen
        return report

    @property
    def held(self) -> dict[str, str]:
        return {id: one["text"] for id, one in self.mesh.collections.get("notes", {}).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "handbook"
    root.mkdir()
    return Folder(root)


def test_a_folder_becomes_documents_and_stays_so_at_no_cost(folder: Folder) -> None:
    folder.write(a="A", sub__b="B")
    report = folder.sync()
    assert report.added == ["a.md", "sub/b.md"]
    assert folder.held == {"a.md": "A", "sub/b.md": "B"}
    document = folder.mesh.collections["notes"]["sub/b.md"]
    assert document["source"] == "sub/b.md"
    assert document["metadata"]["sync"]["source"].startswith("folder:handbook#")
    folder.mesh.calls.clear()
    again = folder.sync()
    assert (again.unchanged, again.is_quiet) == (2, True)
    assert folder.mesh.calls == [("GET", "notes/documents")]


def test_what_is_known_is_not_even_read(folder: Folder) -> None:
    folder.write(a="A")
    folder.sync()
    (folder.root / "a.md").chmod(0)
    stamp = folder.known["a.md"].stamp
    source = FolderSource(folder.root, max_bytes=1000)
    (entry,) = source.entries()
    assert isinstance(entry, Entry)
    known = {"a.md": Known(entry.stamp, folder.known["a.md"].digest)}
    (folder.root / "a.md").write_text("nobody looks")
    unread = FolderSource(folder.root, max_bytes=1000)
    unread.entries = lambda: iter([entry])  # type: ignore[method-assign]
    running = Sync(
        folder.mesh.api(), unread, "notes", options=Options(), known=known, tell=lambda *_: None
    )
    assert running.run().unchanged == 1
    assert stamp != entry.stamp  # the change of its mode alone has it read once


def test_only_what_changed_is_sent_a_rename_sends_nothing(folder: Folder) -> None:
    folder.write(a="A", b="B", c="C", d="D")
    folder.sync()
    folder.mesh.embedded = 0
    folder.write(b="B2", e="E")
    (folder.root / "c.md").rename(folder.root / "moved.md")
    (folder.root / "d.md").unlink()
    report = folder.sync()
    assert (report.changed, report.added, report.deleted) == (["b.md"], ["e.md"], ["d.md"])
    assert report.moved == [{"from": "c.md", "to": "moved.md"}]
    assert folder.mesh.embedded == 2
    assert folder.held == {"a.md": "A", "b.md": "B2", "e.md": "E", "moved.md": "C"}
    moved = folder.mesh.collections["notes"]["moved.md"]
    assert (moved["title"], moved["source"]) == ("moved.md", "moved.md")
    assert moved["metadata"]["source"] == "moved.md"
    assert folder.sync().is_quiet


def test_a_title_of_its_own_stays_when_a_file_moves(folder: Folder) -> None:
    folder.write(a="A")
    folder.sync()
    folder.mesh.collections["notes"]["a.md"]["title"] = "The Book of A"
    (folder.root / "a.md").rename(folder.root / "b.md")
    folder.sync()
    assert folder.mesh.collections["notes"]["b.md"]["title"] == "The Book of A"


def test_another_format_of_the_same_bytes_is_sent(folder: Folder) -> None:
    folder.write(a="A")
    folder.sync()
    (folder.root / "a.md").rename(folder.root / "a.txt")
    report = folder.sync()
    assert (report.added, report.deleted, report.moved) == (["a.txt"], ["a.md"], [])


def test_without_the_cache_everything_is_read_and_nothing_sent(folder: Folder) -> None:
    folder.write(a="A", b="B")
    folder.sync()
    folder.known = {}
    embedded = folder.mesh.embedded
    assert folder.sync().unchanged == 2
    assert folder.mesh.embedded == embedded
    assert set(folder.known) == {"a.md", "b.md"}


def test_a_file_that_was_just_written_is_read_again(folder: Folder) -> None:
    folder.write(a="A")
    (folder.root / "b.md").write_text("B")
    folder.sync()
    assert set(folder.known) == {"a.md"}


def test_a_dry_run_changes_nothing(folder: Folder) -> None:
    folder.write(a="A")
    report = folder.sync(dry_run=True)
    assert report.added == ["a.md"]
    assert folder.mesh.collections == {}
    folder.sync()
    before = dict(folder.held)
    folder.write(b="B")
    (folder.root / "a.md").rename(folder.root / "c.md")
    report = folder.sync(dry_run=True)
    assert (report.added, report.moved) == (["b.md"], [{"from": "a.md", "to": "c.md"}])
    assert folder.held == before


def test_only_what_this_source_brought_is_deleted(folder: Folder) -> None:
    folder.mesh.put("notes", "ingested.md", "by hand")
    folder.mesh.put(
        "notes", "other.md", "X", metadata={"sync": {"source": "s3://b", "digest": "d"}}
    )
    folder.write(a="A", b="B", other="mine")
    report = folder.sync()
    assert report.failed[0]["code"] == "id_taken"
    assert folder.held["other.md"] == "X"
    (folder.root / "a.md").unlink()
    folder.sync(keep_deleted=True)
    assert "a.md" in folder.held
    assert folder.sync().deleted == ["a.md"]
    assert set(folder.held) == {"ingested.md", "other.md", "b.md"}
    report = folder.sync(prefix="mine/")
    assert report.added == ["mine/other.md"]
    assert report.moved == [{"from": "b.md", "to": "mine/b.md"}]


def test_what_was_ingested_before_is_taken_over(folder: Folder) -> None:
    folder.mesh.put("notes", "a.md", "A", access=["group:eng"], metadata={"team": "x"})
    folder.write(a="A")
    assert folder.sync().added == ["a.md"]
    document = folder.mesh.collections["notes"]["a.md"]
    assert document["metadata"]["sync"]["digest"]
    assert document["metadata"]["team"] == "x"
    assert document["access"] == ["group:eng"], "taking it over does not open it"
    assert folder.sync().is_quiet


def test_an_empty_source_deletes_nothing_unasked(folder: Folder) -> None:
    folder.write(a="A")
    folder.sync()
    (folder.root / "a.md").unlink()
    with pytest.raises(Failure) as caught:
        folder.sync()
    assert caught.value.code == "source_empty"
    assert folder.sync(allow_empty=True).deleted == ["a.md"]


def test_globs(folder: Folder) -> None:
    folder.write(a="A", drafts__b="B", drafts__deep__c="C", notes="N")
    assert folder.sync(exclude=["drafts/*", "n*.md"]).added == ["a.md"]
    assert folder.sync(include=["*/c.md", "a.md"]).added == ["drafts/deep/c.md"]


def test_one_bad_file_does_not_stop_the_others(folder: Folder) -> None:
    folder.write(a="A", b="BAD", c="C")
    report = folder.sync()
    assert (report.added, report.failed[0]["id"], report.failed[0]["code"]) == (
        ["a.md", "c.md"], "b.md", "unreadable_document",
    )  # fmt: skip
    assert folder.sync().failed[0]["id"] == "b.md"


def test_an_access_list_is_kept_and_changed_only_when_asked(folder: Folder) -> None:
    folder.write(a="A", b="B")
    folder.sync(access=["group:eng"])
    folder.write(a="A2")
    folder.sync()
    access = {id: one["access"] for id, one in folder.mesh.collections["notes"].items()}
    assert access == {"a.md": ["group:eng"], "b.md": ["group:eng"]}
    report = folder.sync(access=["group:ops"])
    assert report.changed == ["a.md", "b.md"]
    assert folder.sync(access=["group:ops"]).is_quiet


def test_what_somebody_changed_meanwhile_is_sent_instead_of_moved(folder: Folder) -> None:
    folder.write(a="A")
    folder.sync()
    (folder.root / "a.md").rename(folder.root / "b.md")
    gone = httpx.Response(404, json={"error": {"message": "m", "code": "document_not_found"}})
    folder.mesh.refuse = lambda request: gone if request.method == "PATCH" else None
    assert folder.sync().added == ["b.md"]


def test_a_mesh_that_fails_leaves_the_rest_for_the_next_time(folder: Folder) -> None:
    folder.write(a="A", b="B")
    folder.sync()
    folder.write(a="A2")
    (folder.root / "b.md").unlink()
    down = httpx.Response(503, json={"error": {"message": "down", "code": "unavailable"}})
    folder.mesh.refuse = lambda request: None if request.method == "GET" else down
    report = folder.sync()
    assert {one["id"] for one in report.failed} == {"a.md", "b.md"}
    folder.mesh.refuse = lambda request: None
    report = folder.sync()
    assert (report.changed, report.deleted) == (["a.md"], ["b.md"])


# The folder


def scan(root: Path, **options) -> tuple[list[str], dict[str, str]]:
    source = FolderSource(root, max_bytes=options.pop("max_bytes", 1000))
    found = list(source.entries())
    entries = [one.id for one in found if isinstance(one, Entry)]
    return entries, {one.id: one.reason for one in found if isinstance(one, Skipped)}


def test_what_cannot_be_a_document_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / ".git").mkdir(parents=True)
    for name in (".hidden.md", ".git/a.md", "photo.png", "good.md", "line\nbreak.md"):
        (root / name).write_text("x")
    (root / "empty.md").touch()
    (root / "large.md").write_text("x" * 1001)
    os.mkfifo(root / "pipe.md")
    entries, skipped = scan(root)
    assert entries == ["good.md"]
    assert skipped == {
        ".git": "it is hidden",
        ".hidden.md": "it is hidden",
        "photo.png": "its format is not supported",
        "line\nbreak.md": "its name has control characters",
        "empty.md": "it is empty",
        "large.md": "it is larger than 1000 bytes",
        "pipe.md": "it is no file",
    }


def test_links_stay_within_the_folder_and_lead_round_no_circle(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.md").write_text("secret")
    (root / "real.md").write_text("x")
    (root / "link.md").symlink_to("real.md")
    (root / "out.md").symlink_to(tmp_path / "secret.md")
    (root / "sub" / "loop").symlink_to(root)
    (root / "broken.md").symlink_to("nowhere.md")
    (root / "self.md").symlink_to("self.md")
    entries, skipped = scan(root)
    assert entries == ["link.md", "real.md"]
    assert skipped["out.md"] == "it is a link that leaves the folder"
    assert set(skipped) == {"out.md", "sub/loop", "broken.md", "self.md"}


def test_names_that_are_no_text_or_are_spelled_twice(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    forms = [unicodedata.normalize(form, "ガ.md").encode() for form in ("NFC", "NFD")]
    for name in (b"caf\xe9.md", *forms):
        with open(os.path.join(root, name), "wb") as file:
            file.write(b"x")
    entries, skipped = scan(tmp_path)
    assert sorted(entries) == ["caf\\xe9.md", "ガ.md"]
    assert skipped == {"ガ.md": "another file has the same name, spelled otherwise"}


def test_a_folder_that_cannot_be_listed_whole_deletes_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(a="A", sub__b="B")
    folder.sync()
    (folder.root / "a.md").unlink()
    original = os.scandir

    def scandir(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    folder.write(c="C")
    report = folder.sync()
    assert (report.kept, report.deleted) == (["a.md", "sub/b.md"], [])
    assert report.failed[0]["id"] == "sub/"
    monkeypatch.undo()
    assert folder.sync().deleted == ["a.md"]


def test_the_name_of_a_folder_tells_folders_apart(tmp_path: Path) -> None:
    for place in ("one/docs", "two/docs"):
        (tmp_path / place).mkdir(parents=True)
    names = [FolderSource(tmp_path / one / "docs", max_bytes=1).name for one in ("one", "two")]
    assert names[0] != names[1]
    assert str(tmp_path) not in names[0]
    assert FolderSource(tmp_path, alias="docs", max_bytes=1).name == "folder:docs"


@pytest.mark.parametrize("given", ["/nowhere/at/all", "ftp://host/x", "http://", "https:///x"])
def test_what_is_no_source(given: str) -> None:
    with pytest.raises(Failure) as caught:
        open_source(given, "", MAX_BYTES)
    assert caught.value.code == "no_such_source"


def test_one_sync_at_a_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "http://mesh", "notes", "folder:a")
    with pytest.raises(Failure) as caught:
        Cache(tmp_path, "http://mesh", "notes", "folder:a")
    assert caught.value.code == "sync_running"
    cache.save({"a": Known("s", "d")})
    cache.close()
    other = Cache(tmp_path, "http://mesh", "other", "folder:a")
    assert other.known == {}
    other.close()
    again = Cache(tmp_path, "http://mesh", "notes", "folder:a")
    assert again.known == {"a": Known("s", "d")}
    again.close()
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    broken = Cache(tmp_path, "http://mesh", "notes", "folder:a")
    assert broken.known == {}
    broken.close()


def test_a_command_that_finds_no_source_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAGMESH_DATA", str(tmp_path / "var"))
    result = CliRunner().invoke(app, ["sync", str(tmp_path / "none"), "notes", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "no_such_source"
