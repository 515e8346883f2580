"""One sync: list both sides, compare digests, move, send, delete."""

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from cli.api import Api, ApiError
from cli.console import Failure
from cli.demo import ensure_collection
from cli.syncing.entries import Content, Entry, Known, NotRead, Skipped, Source, extension_of
from cli.syncing.planning import Move, Plan, make_plan
from cli.transfers import path_of

KEY = "sync"
"""The member of a document's metadata that says where it came from."""
BATCH_FILES = 16
"""Small files that are sent in one call."""
BATCH_BYTES = 8 * 1024 * 1024
T = TypeVar("T")
R = TypeVar("R")

Tell = Callable[[str, int, int], None]
"""In which phase how many of how many are done."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to do and what not."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    prefix: str = ""
    """What the ids of documents begin with."""
    access: Sequence[str] = ()
    keep_deleted: bool = False
    allow_empty: bool = False
    dry_run: bool = False
    parallel: int = 4


@dataclass(slots=True)
class Report:
    """What was done, or, in a dry run, would be."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: list[dict[str, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Documents whose source is gone and that were not deleted."""
    unchanged: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def fail(self, id: str, error: str, code: str = "unreadable") -> None:
        self.failed.append({"id": id, "error": error, "code": code})

    @property
    def is_quiet(self) -> bool:
        """Whether nothing happened."""
        done = (self.added, self.changed, self.moved, self.deleted, self.failed)
        return not any(done)


@dataclass(frozen=True, slots=True)
class _Remote:
    """A document of the collection."""

    digest: str
    """Empty for one that no sync brought."""
    source: str
    title: str
    metadata: Mapping[str, Any]
    access: Sequence[str]


class Sync:
    """One source and one collection, once."""

    def __init__(
        self,
        api: Api,
        source: Source,
        collection: str,
        *,
        options: Options,
        known: Mapping[str, Known],
        tell: Tell,
    ) -> None:
        self._api = api
        self._source = source
        self._collection = collection
        self._options = options
        self._known = known
        self._tell = tell
        self._name = source.name
        self._report = Report()
        self.seen: dict[str, Known] = {}
        """What is to be remembered of each entry for the next time."""

    def run(self) -> Report:
        """Do it.

        Raises:
            Failure: the source or the mesh cannot be read, or the source is empty and what it
                brought would all be deleted.
        """
        report = self._report
        entries, kept = self._scan()
        remote = self._remote()
        mine = {id: one for id, one in remote.items() if one.source == self._name}
        entries = self._without_foreign(entries, remote)
        local = self._digests(entries, mine, kept)
        if mine and not entries and not kept and not self._options.allow_empty:
            raise Failure(
                f"{self._name} has no documents, and {len(mine)} came from it: is it there? "
                "--allow-empty deletes them.",
                code="source_empty",
            )
        plan = make_plan(
            local,
            {id: self._held(one) for id, one in mine.items()},
            kept=kept & mine.keys(),
            may_move=lambda old, new: extension_of(old) == extension_of(new),
        )
        report.unchanged = len(plan.unchanged)
        gone = plan.deleted
        if self._options.keep_deleted or not self._source.complete:
            report.kept, gone = gone, []
        if self._options.dry_run:
            report.added, report.changed, report.deleted = plan.added, plan.changed, gone
            report.moved = [{"from": one.old, "to": one.new} for one in plan.moves]
            return report
        if entries and not mine:
            ensure_collection(self._api, self._collection)
        self._carry_out(plan, gone, entries, remote)
        return report

    # Looking

    def _scan(self) -> tuple[dict[str, Entry], set[str]]:
        """The source's entries by document id, and ids whose entries could not be looked at."""
        entries: dict[str, Entry] = {}
        kept: set[str] = set()
        for found in self._source.entries():
            id = self._options.prefix + found.id
            if not self._is_wanted(found.id):
                continue
            if isinstance(found, Skipped):
                if found.failed:
                    kept.add(id)
                    self._report.fail(found.id, found.reason)
                else:
                    self._report.skipped.append({"id": found.id, "reason": found.reason})
                continue
            entries[id] = found
        return entries, kept

    def _is_wanted(self, id: str) -> bool:
        include, exclude = self._options.include, self._options.exclude
        return (not include or _matches(id, include)) and not _matches(id, exclude)

    def _remote(self) -> dict[str, _Remote]:
        """The collection's documents; none when it does not exist yet."""
        found: dict[str, _Remote] = {}
        after: str | None = ""
        while after is not None:
            try:
                page = self._api.call_again(
                    "GET",
                    path_of(self._collection, "/documents"),
                    params={"limit": 1000, "after": after},
                )
            except ApiError as error:
                if error.code == "collection_not_found":
                    return {}
                raise
            for one in page["documents"]:
                origin = one["metadata"].get(KEY)
                origin = origin if isinstance(origin, dict) else {}
                found[one["id"]] = _Remote(
                    str(origin.get("digest", "")),
                    str(origin.get("source", "")),
                    one["title"],
                    one["metadata"],
                    one["access"] or (),
                )
            after = page["next"]
        return found

    def _held(self, one: _Remote) -> str:
        """The digest that counts: none where the access list is to become another."""
        wanted = sorted(self._options.access)
        return "" if wanted and wanted != sorted(one.access) else one.digest

    def _without_foreign(
        self, entries: dict[str, Entry], remote: Mapping[str, _Remote]
    ) -> dict[str, Entry]:
        """Leave alone what another source brought under the same id."""
        own = {}
        for id, entry in entries.items():
            other = remote[id].source if id in remote else ""
            if other not in ("", self._name):
                text = f"the id {id!r} is taken by {other}; --prefix tells them apart"
                self._report.fail(entry.id, text, "id_taken")
            else:
                own[id] = entry
        return own

    def _digests(
        self, entries: dict[str, Entry], mine: Mapping[str, _Remote], kept: set[str]
    ) -> dict[str, str]:
        """The entries' digests; only what has changed since the last time is read."""
        digests: dict[str, str] = {}
        unread = []
        for id, entry in entries.items():
            known = self._known.get(id)
            if known is not None and entry.stamp and known.stamp == entry.stamp:
                digests[id] = known.digest
                self.seen[id] = known
            else:
                unread.append(id)
        done = 0
        for id, outcome in self._each(unread, lambda one: self._read(one, entries[one], mine)):
            done += 1
            self._tell("sync.reading", done, len(unread))
            if isinstance(outcome, Known):
                digests[id] = outcome.digest
                if outcome.stamp:
                    self.seen[id] = outcome
                continue
            entry = entries.pop(id)
            if isinstance(outcome, NotRead) and not outcome.fatal:
                self._report.skipped.append({"id": entry.id, "reason": outcome.reason})
            elif not (isinstance(outcome, NotRead) and outcome.gone):
                kept.add(id)
                self._report.fail(entry.id, str(outcome))
        return digests

    def _read(self, id: str, entry: Entry, mine: Mapping[str, _Remote]) -> Known:
        known = self._known.get(id)
        content = self._source.open(entry, known)
        if content is None:
            assert known is not None  # noqa: S101 - only what is known can be unchanged
            return known
        held = mine.get(id)
        if held is not None and held.digest == content.digest:
            content.file.close()
        else:
            self._keep(entry, content)
        return Known(content.stamp, content.digest)

    def _keep(self, entry: Entry, content: Content) -> None:
        keep = getattr(self._source, "keep", None)
        if keep is None:
            content.file.close()
        else:
            keep(entry, content)

    # Doing

    def _carry_out(
        self,
        plan: Plan,
        gone: Sequence[str],
        entries: Mapping[str, Entry],
        remote: Mapping[str, _Remote],
    ) -> None:
        report = self._report
        added, changed = list(plan.added), list(plan.changed)
        total = len(plan.moves) + len(added) + len(changed) + len(gone)
        done = 0
        for move in plan.moves:
            done += 1
            self._tell("sync.progress", done, total)
            try:
                self._move(move, remote[move.old])
                report.moved.append({"from": move.old, "to": move.new})
            except ApiError as error:
                if error.may_retry and error.http_status != 409:
                    report.fail(move.new, error.text, error.code)
                    self.seen.pop(move.new, None)
                else:  # somebody changed or deleted it meanwhile
                    added.append(move.new)
        batches = self._batches([*added, *changed], entries)
        fresh = set(added)
        for batch, outcome in self._each(batches, lambda one: self._send(one, entries, remote)):
            done += len(batch)
            self._tell("sync.progress", done, total)
            results = outcome if isinstance(outcome, list) else [(id, outcome) for id in batch]
            for id, result in results:
                if isinstance(result, BaseException):
                    self.seen.pop(id, None)
                    code = result.code if isinstance(result, Failure) else "unreadable"
                    report.fail(id, str(result), code)
                elif result == "unchanged":
                    report.unchanged += 1
                else:
                    (report.added if id in fresh else report.changed).append(id)
        for id, failure in self._each(gone, self._delete):
            done += 1
            self._tell("sync.progress", done, total)
            if failure is not None:
                code = failure.code if isinstance(failure, Failure) else "failed"
                report.fail(id, str(failure), code)
            else:
                report.deleted.append(id)

    def _move(self, move: Move, held: _Remote) -> None:
        metadata = {**held.metadata, "source": move.new}
        body: dict[str, Any] = {"id": move.new, "source": move.new, "metadata": metadata}
        if held.title in (move.old, PurePosixPath(move.old).name):
            body["title"] = move.new  # as for a document without a title of its own
        if move.replaces:
            body["replace"] = True
        self._api.call_again("PATCH", self._document(move.old), json=body)

    def _delete(self, id: str) -> None:
        try:
            self._api.call_again("DELETE", self._document(id))
        except ApiError as error:
            if error.code != "document_not_found":
                raise

    def _document(self, id: str) -> str:
        return path_of(self._collection, f"/documents/{quote(id, safe='')}")

    def _batches(self, ids: Sequence[str], entries: Mapping[str, Entry]) -> Iterator[list[str]]:
        """Small files together, others alone."""
        batch: list[str] = []
        size = 0
        for id in ids:
            bytes_ = _size_of(entries[id])
            if batch and (len(batch) >= BATCH_FILES or size + bytes_ > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(id)
            size += bytes_
        if batch:
            yield batch

    def _send(
        self, ids: Sequence[str], entries: Mapping[str, Entry], remote: Mapping[str, _Remote]
    ) -> list[tuple[str, str | BaseException]]:
        """Ingest some files; when one is refused, each by itself. Answers status or error."""
        done: list[tuple[str, str | BaseException]] = []
        with ExitStack() as opened:
            parts: list[tuple[str, Any]] = []
            facts: list[dict[str, Any]] = []
            sent: list[str] = []
            for id in ids:
                try:
                    content = self._source.open(entries[id], None)
                except NotRead as error:
                    done.append((id, error))
                    continue
                assert content is not None  # noqa: S101 - nothing was known
                opened.enter_context(content.file)
                parts.append(("file", (content.name, content.file, content.kind)))
                facts.append(self._facts(id, content, remote.get(id)))
                sent.append(id)
            if not parts:
                return done
            try:
                answer = self._api.call_again(
                    "POST",
                    path_of(self._collection, "/documents"),
                    files=parts,
                    data={"metadata": json.dumps(facts)},
                )
            except ApiError as error:
                if len(sent) == 1:
                    return [*done, (sent[0], error)]
                if error.may_retry:
                    return [*done, *((id, error) for id in sent)]
            else:
                status = {one["id"]: one["status"] for one in answer["documents"]}
                return [*done, *((id, status[id]) for id in sent)]
        for id in sent:
            done += self._send([id], entries, remote)
        return done

    def _facts(self, id: str, content: Content, held: _Remote | None) -> dict[str, Any]:
        facts: dict[str, Any] = {
            **(held.metadata if held else {}),
            "id": id,
            "source": id,
            KEY: {"source": self._name, "digest": content.digest},
        }
        # A document's access list stays when its content changes, whoever brought it: leaving it
        # out would open it.
        access = list(self._options.access) or list(held.access if held else ())
        if access:
            facts["access"] = access
        return facts

    def _each(
        self, items: Iterable[T], work: Callable[[T], R]
    ) -> Iterator[tuple[T, R | BaseException]]:
        """Results as they come, several at a time; what fails is a result too."""
        with ThreadPoolExecutor(self._options.parallel) as pool:
            waiting = iter(items)
            running: dict[Future[R], T] = {}
            try:
                while True:
                    # Handed over as slots come free, so that Ctrl-C leaves no queue to work off.
                    for item in waiting:
                        running[pool.submit(work, item)] = item
                        if len(running) == self._options.parallel:
                            break
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        item = running.pop(future)
                        try:
                            yield item, future.result()
                        except (Failure, NotRead, OSError) as error:
                            yield item, error
            finally:
                pool.shutdown(cancel_futures=True)


def _size_of(entry: Entry) -> int:
    """Bytes, where listing told; else as if it filled a batch with three others."""
    first = entry.stamp.partition(" ")[0]
    return int(first) if first.isdecimal() else BATCH_BYTES // 4


def _matches(id: str, patterns: Sequence[str]) -> bool:
    """Whether a path, or for patterns without a slash its last part, matches one of them."""
    name = PurePosixPath(id).name
    return any(fnmatch.fnmatchcase(id if "/" in pattern else name, pattern) for pattern in patterns)
