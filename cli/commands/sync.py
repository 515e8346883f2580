"""`ragmesh sync`: a collection that follows a folder, a web address or a bucket."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.api import PATIENT_ATTEMPTS, Api
from cli.console import Failure, Screen
from cli.options import JsonOption, LangOption, Session, command
from cli.progress import progress_bar
from cli.syncing.bucket import SCHEMES, BucketSource
from cli.syncing.cache import Cache
from cli.syncing.entries import MAX_BYTES, Source
from cli.syncing.folder import FolderSource
from cli.syncing.run import Options, Report, Sync, Tell
from cli.syncing.web import WebSource

EXIT_SOME_FAILED = 1


def sync(
    source: Annotated[
        str, typer.Argument(help="A folder, an http(s) address, or s3://, gs://, az://.")
    ],
    collection: Annotated[str, typer.Argument(help="Where to; made if it does not exist.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Only paths like this (*.md, guides/*); repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No paths like this; repeatable.")
    ] = None,
    keep_deleted: Annotated[
        bool, typer.Option("--keep-deleted", help="Delete no document.")
    ] = False,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Delete all of them where the source is empty.")
    ] = False,
    alias: Annotated[
        str,
        typer.Option(
            "--as", help="Name of the source: the same from every machine, wherever it lies."
        ),
    ] = "",
    prefix: Annotated[
        str, typer.Option(help="What the ids begin with: for several sources in one collection.")
    ] = "",
    access: Annotated[
        list[str] | None,
        typer.Option(help="Who may read the documents: user:NAME or group:NAME; repeatable."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Larger files are left out.")] = MAX_BYTES,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Files, or small batches, on their way at a time.")
    ] = 4,
    watch: Annotated[
        float | None, typer.Option(min=1, help="Sync again after so many seconds, until Ctrl-C.")
    ] = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Make a collection follow a folder, a page, sitemap or listing on the web, or a bucket.

    Only what changed is read and sent; a renamed file keeps its chunks and vectors; documents whose
    file is gone are deleted, if this source brought them. The source is read where this is typed.
    The status is 0 when everything is as the source has it, 1 when something failed.

    Examples:

      ragmesh sync handbook/ handbook --exclude 'drafts/*'

      ragmesh sync https://example.com/sitemap.xml site --dry-run

      ragmesh sync s3://bucket/guides guides --json
    """
    options = Options(
        include=include or (),
        exclude=exclude or (),
        prefix=prefix,
        access=access or (),
        keep_deleted=keep_deleted,
        allow_empty=allow_empty,
        dry_run=dry_run,
        parallel=concurrency,
    )
    with (
        command(as_json, lang) as session,
        closing(open_source(source, alias, max_bytes)) as opened,
        Api(session.settings, attempts=PATIENT_ATTEMPTS) as api,
        closing(Cache(session.settings.data / "sync", api.url, collection, opened.name)) as cache,
    ):
        once = partial(_once, session, api, opened, collection, options=options, cache=cache)
        failed = once(quiet=False)
        while watch is not None:
            try:
                time.sleep(watch)
                failed = once(quiet=True)
            except KeyboardInterrupt:
                break
            except Failure as failure:  # a mesh or a source that is away comes back
                failed = True
                session.screen.err.print(failure.text, style="red")
        if failed:
            raise typer.Exit(EXIT_SOME_FAILED)


def open_source(given: str, alias: str, max_bytes: int) -> Source:
    """The source of an address.

    Raises:
        Failure: there is none.
    """
    scheme, mark, _ = given.partition("://")
    if not mark or scheme == "file":
        path = Path(given.removeprefix("file://")).expanduser()
        return FolderSource(path, alias=alias, max_bytes=max_bytes)
    if scheme.lower() in ("http", "https"):
        return WebSource(given, alias=alias, max_bytes=max_bytes)
    if scheme.lower() in SCHEMES:
        return BucketSource(given, alias=alias, max_bytes=max_bytes)
    raise Failure(
        f"{scheme}:// is not known; a source is a folder, http://, https://, s3://, gs:// or "
        "az://.",
        code="no_such_source",
    )


def _once(
    session: Session,
    api: Api,
    source: Source,
    collection: str,
    *,
    options: Options,
    cache: Cache,
    quiet: bool,
) -> bool:
    """One pass; answers whether something failed."""
    screen, began = session.screen, time.monotonic()
    with _progress(screen) as tell:
        running = Sync(api, source, collection, options=options, known=cache.known, tell=tell)
        try:
            report = running.run()
        finally:
            if not options.dry_run and running.seen != cache.known:
                cache.save(running.seen)
                cache.known = dict(running.seen)
    if not (quiet and report.is_quiet):
        seconds = time.monotonic() - began
        _print(screen, report, source, collection, options=options, seconds=seconds)
    return bool(report.failed)


def _print(
    screen: Screen,
    report: Report,
    source: Source,
    collection: str,
    *,
    options: Options,
    seconds: float,
) -> None:
    facts = {"source": source.name, "collection": collection, "dry_run": options.dry_run}
    screen.json({**facts, **asdict(report), "seconds": round(seconds, 3)})
    for one in report.failed:
        screen.err.print(f"{one['id']}: {one['error']}", style="red")
    if options.dry_run:
        for mark, ids in (("+", report.added), ("~", report.changed), ("-", report.deleted)):
            for id in ids:
                screen.line(f"{mark} {id}")
        for move in report.moved:
            screen.line(f"> {move['from']} -> {move['to']}")
    if report.kept and not options.keep_deleted:
        screen.note("sync.kept", count=len(report.kept))
    screen.say(
        "sync.would" if options.dry_run else "sync.done",
        added=len(report.added),
        changed=len(report.changed),
        moved=len(report.moved),
        deleted=len(report.deleted),
        unchanged=report.unchanged,
        skipped=len(report.skipped),
        failed=len(report.failed),
        seconds=seconds,
    )


@contextmanager
def _progress(screen: Screen) -> Iterator[Tell]:
    """A bar on stderr, where a person looks, and what moves it."""
    with progress_bar(screen) as bar:
        task = bar.add_task("", total=None)
        yield lambda phase, done, total: bar.update(
            task, description=screen.text(phase), completed=done, total=total
        )
