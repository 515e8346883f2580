"""`ragmesh ingest`: files into a collection."""

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.api import Api
from cli.console import Failure
from cli.demo import ensure_collection
from cli.documents import Document, find_documents, upload
from cli.options import JsonOption, LangOption, Session, command
from cli.progress import ChunkBars, progress_bar

EXIT_SOME_FAILED = 1


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders to look through.")],
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Where to; made if it does not exist.")
    ] = "default",
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Files on their way at a time.")
    ] = 4,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Ingest documents, with a progress bar.

    What is already there unchanged is not done again, so a run that was broken off is repeated.

    Overload and a service that is down are waited for; a file that is refused is named and the
    rest go on. The status is 0 when every file is in.

    Examples:

      ragmesh ingest docs/ --collection handbook

      ragmesh ingest report.pdf notes.md -c handbook --json
    """
    with command(as_json, lang) as session:
        documents = find_documents(paths)
        if not documents:
            names = ", ".join(map(str, paths))
            raise Failure(session.screen.text("ingest.none", paths=names), code="no_files")
        began = time.monotonic()
        results, errors = _run(session, documents, collection, concurrency)
        counts = {"indexed": 0, "replaced": 0, "unchanged": 0, "failed": len(errors)}
        for result in results:
            counts[result["status"]] = counts.get(result["status"], 0) + 1
        seconds = time.monotonic() - began
        session.screen.line(session.screen.text("ingest.done", seconds=seconds, **counts))
        session.screen.json(
            {"collection": collection, **counts, "documents": results, "errors": errors}
        )
        if errors:
            raise typer.Exit(EXIT_SOME_FAILED)


def _run(
    session: Session, documents: list[Document], collection: str, concurrency: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results and errors, each in the order of finishing."""
    screen = session.screen
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    with Api(session.settings) as api, progress_bar(screen) as bar:
        ensure_collection(api, collection)
        task = bar.add_task(screen.text("ingest.progress"), total=len(documents))
        bars = None if bar.disable else ChunkBars(bar, screen)
        for document, outcome in _upload_all(api, collection, documents, concurrency, bars):
            if isinstance(outcome, Failure):
                errors.append(
                    {"file": str(document.path), "error": outcome.text, "code": outcome.code}
                )
                screen.err.print(f"{document.path}: {outcome.text}", style="red")
            else:
                results.append(outcome)
            bar.advance(task)
    return results, errors


def _upload_all(
    api: Api,
    collection: str,
    documents: list[Document],
    concurrency: int,
    bars: ChunkBars | None,
) -> Iterator[tuple[Document, dict[str, Any] | Failure]]:
    with ThreadPoolExecutor(concurrency) as pool:
        waiting = iter(documents)
        running: dict[Future[dict[str, Any]], Document] = {}
        try:
            while True:
                # Handed over as slots come free, so that Ctrl-C leaves no queue to work off.
                for document in waiting:
                    future = pool.submit(_upload, api, collection, document, bars)
                    running[future] = document
                    if len(running) == concurrency:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    document = running.pop(future)
                    try:
                        yield document, future.result()
                    except Failure as failure:
                        yield document, failure
                    except OSError as error:
                        text = error.strerror or "it cannot be read"
                        yield document, Failure(text, code="unreadable")
        finally:
            pool.shutdown(cancel_futures=True)


def _upload(
    api: Api, collection: str, document: Document, bars: ChunkBars | None
) -> dict[str, Any]:
    # A file named alone keeps its name as id; below a folder its path tells equal names apart.
    metadata = {"id": document.id} if document.id != document.path.name else None
    if bars is None:
        return upload(api, collection, [document], metadata=metadata)[0]
    with bars.of(document.id) as tell:
        return upload(api, collection, [document], metadata=metadata, tell=tell)[0]
