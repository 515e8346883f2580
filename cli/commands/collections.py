"""`ragmesh collections`: what there is, and collections as a whole."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.api import PATIENT_ATTEMPTS, Api
from cli.console import Screen
from cli.options import JsonOption, LangOption, Session, command
from cli.progress import progress_bar
from cli.transfers import (
    Tell,
    check_file,
    ensure_collection_like,
    export_collection,
    import_collection,
    path_of,
    reindex_collection,
    summary,
)

collections = typer.Typer(
    no_args_is_help=True,
    help="List, make, show and delete collections; move them between meshes; make them anew.",
)
Name = Annotated[str, typer.Argument(help="The collection.")]


@collections.command("list")
def list_(as_json: JsonOption = False, lang: LangOption = None) -> None:
    """List the tenant's collections.

    Example:

      ragmesh collections list
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = api.call_again("GET", "/v1/collections", params={"limit": 1000, "after": after})
            found += page["collections"]
            after = page["next"]
        session.screen.json({"collections": found})
        if not as_json:
            table = Table(box=None, pad_edge=False)
            for column in ("name", "documents", "chunks", "encoder", "analyzer", "description"):
                right = column in ("documents", "chunks")
                table.add_column(column, justify="right" if right else "left")
            for one in found:
                table.add_row(
                    one["name"], str(one["documents"]), str(one["chunks"]), one["encoder"],
                    one["analyzer"], one["description"],
                )  # fmt: skip
            session.screen.out.print(table)


@collections.command()
def create(
    name: Name,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Make a collection.

    Example:

      ragmesh collections create handbook --description "What new colleagues ask"
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        made = api.call("POST", "/v1/collections", json={"name": name, "description": description})
        session.screen.json(made)
        session.screen.say("collections.created", name=name)


@collections.command()
def show(name: Name, as_json: JsonOption = False, lang: LangOption = None) -> None:
    """Show a collection's facts.

    Example:

      ragmesh collections show handbook --json
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        found = api.call_again("GET", path_of(name))
        session.screen.json(found)
        if not as_json:
            table = Table(box=None, pad_edge=False, show_header=False)
            for key, value in found.items():
                if key != "calibration":
                    table.add_row(key, str(value))
            session.screen.out.print(table)


@collections.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Delete a collection with everything in it.

    Example:

      ragmesh collections delete handbook --yes
    """
    with command(as_json, lang) as session, Api(session.settings) as api:
        if not yes:
            typer.confirm(f"Delete the collection {name} with everything in it?", abort=True)
        answer = api.call("DELETE", path_of(name))
        session.screen.json(answer)
        session.screen.say("collections.deleted", name=name, documents=answer["documents"])


@collections.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Where to, such as handbook.jsonl.gz.")],
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Write a collection into a file: documents, access lists, chunks, vectors.

    It holds what the token may read. A run that was broken off is repeated, and goes on where it
    stopped: what it wrote is in FILE.part until the file is whole.

    Example:

      ragmesh collections export handbook handbook.jsonl.gz
    """
    with command(as_json, lang) as session, patient(session) as api:
        screen, began = session.screen, time.monotonic()
        with progress(screen, "export.progress") as tell:
            done = export_collection(api, name, file, tell)
        if not done.everything:
            screen.note("export.partial")
        screen.json({"collection": name, "file": str(file), **summary(done)})
        screen.say(
            "export.done",
            documents=done.documents,
            chunks=done.chunks,
            file=file,
            seconds=time.monotonic() - began,
        )


@collections.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Collection to import into; default: its name.")
    ] = None,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Bring an exported collection in; the collection is made if it does not exist.

    Where the running encoder made the vectors they are taken over, else the chunks are embedded
    anew. The file is checked before anything is sent. A run that was broken off is repeated: what
    is there is not sent again.

    Example:

      ragmesh collections import handbook.jsonl.gz --name handbook-2
    """
    with command(as_json, lang) as session, patient(session) as api:
        screen, began = session.screen, time.monotonic()
        header = check_file(file)
        target = name or str(header["name"])
        made = ensure_collection_like(api, target, header)
        fits = made["encoder"] == header["encoder"]
        if not fits:
            screen.note("import.embeds", theirs=header["encoder"], ours=made["encoder"])
        with progress(screen, "import.progress") as tell:
            done = import_collection(api, target, file, tell, int(header["documents"]))
        vectors = "imported" if fits else "embedded"
        screen.json({"collection": target, "vectors": vectors, **summary(done)})
        screen.say(
            "import.done", collection=target, seconds=time.monotonic() - began, **summary(done)
        )


@collections.command()
def reindex(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Embed everything again, also what fits.")
    ] = False,
    as_json: JsonOption = False,
    lang: LangOption = None,
) -> None:
    """Make a collection anew with the running encoder and analyser, while it goes on answering.

    Its chunks stay as they are cut. A run that was broken off is repeated and goes on.

    Example:

      ragmesh collections reindex handbook
    """
    with command(as_json, lang) as session, patient(session) as api:
        screen, began = session.screen, time.monotonic()
        with progress(screen, "reindex.progress") as tell:
            done = reindex_collection(api, name, tell, force=force)
        screen.json(done)
        if not done["reindexed"]:
            screen.say("reindex.fits", collection=name, encoder=done["collection"]["encoder"])
            return
        if done["full_chunks"]:
            screen.note("reindex.full", chunks=done["full_chunks"])
        screen.say(
            "reindex.done",
            collection=name,
            documents=done["documents"],
            chunks=done["embedded_chunks"],
            seconds=time.monotonic() - began,
        )


def patient(session: Session) -> Api:
    """Calls that outlive a restart of a service."""
    return Api(session.settings, attempts=PATIENT_ATTEMPTS)


@contextmanager
def progress(screen: Screen, key: str) -> Iterator[Tell]:
    """A bar on stderr, where a person looks, and what moves it."""
    with progress_bar(screen) as bar:
        task = bar.add_task(screen.text(key), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
