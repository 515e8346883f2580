"""Files on their way into a collection."""

import json
import mimetypes
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cli.api import Api
from cli.console import Failure

EXTENSIONS = frozenset("pdf docx pptx xlsx html htm md markdown txt text csv json eml epub".split())
"""What the mesh may read; whether it does is its own to say."""
IGNORED = frozenset({"questions.json"})
"""Beside documents in folders, not one of them."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file and the id it gets: its path below the folder that was named."""

    path: Path
    id: str


def find_documents(paths: Iterable[Path], *, recursive: bool = True) -> list[Document]:
    """The files that were named, and those of known formats in the folders that were.

    Raises:
        Failure: a path does not exist, or two files would get one id.
    """
    found: dict[str, Document] = {}
    for path in paths:
        if path.is_file():
            documents = [Document(path, path.name)]
        elif path.is_dir():
            files = sorted(path.rglob("*") if recursive else path.glob("*"))
            documents = [
                Document(file, file.relative_to(path).as_posix())
                for file in files
                if _is_document(file, path)
            ]
        else:
            raise Failure(f"{path} does not exist.", code="no_such_file")
        for document in documents:
            other = found.setdefault(document.id, document)
            if other.path.resolve() != document.path.resolve():
                raise Failure(
                    f"{other.path} and {document.path} would both become '{document.id}': ingest "
                    "the folder that holds both.",
                    code="duplicate_id",
                )
    return list(found.values())


def upload(
    api: Api,
    collection: str,
    documents: Sequence[Document],
    *,
    metadata: dict[str, Any] | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Ingest files in one call; answers one result a file. Safe to repeat. Raises ApiError.

    Args:
        metadata: for every file; with an ``id`` the call takes one file only.
        tell: gets on the way how far it is.
    """
    with ExitStack() as opened:
        files = [
            (
                "file",
                (
                    document.path.name,
                    opened.enter_context(document.path.open("rb")),
                    _kind(document.path),
                ),
            )
            for document in documents
        ]
        data = {"metadata": json.dumps(metadata)} if metadata else None
        path = f"/v1/collections/{quote(collection, safe='')}/documents"
        # Read whole by httpx on each attempt: rewound by it where it can seek, as files do.
        if tell is None:
            answer = api.call_again("POST", path, files=files, data=data)
        else:
            answer = api.again(lambda: api.call_told(path, tell, files=files, data=data))
    results: list[dict[str, Any]] = answer["documents"]
    return results


def _is_document(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    known = file.suffix.lower().lstrip(".") in EXTENSIONS
    return known and not hidden and file.name not in IGNORED and file.is_file()


def _kind(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
