"""What clients upload, as the pipeline's `Upload`s: multipart forms and JSON documents."""

import hashlib
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import Any

import orjson
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gateway.bodies import loads
from gateway.errors import too_large
from gateway.freeform import check_depth
from gateway.ingest import FileContent, TextContent, Upload
from gateway.schemas import ACCESS_ENTRY, DocumentBody
from gateway.settings import GatewaySettings
from services.runtime.errors import InvalidArgument

MARKDOWN = "text/markdown"
MAX_FIELDS = 16
MAX_FILENAME_CHARACTERS = 1024
MAX_ACCESS_ENTRIES = 64
_RESERVED = frozenset({"id", "access"})
"""Keys of a file's metadata that say something about the document; they are not kept in it."""


class FormParser(MultiPartParser):
    """Starlette's, which also takes a name that stands in ``filename*`` alone (RFC 5987).

    RFC 7578 rules that form out, and urllib3 before 2 sends every name so that is not ASCII.
    """

    def on_headers_finished(self) -> None:
        part = self._current_part
        given = part.content_disposition or b""
        if b"filename*" in given.lower() and b"filename=" not in given.lower():
            header = Message()
            header["content-disposition"] = given.decode("latin-1")
            filename = header.get_filename()
            if filename:
                quoted = filename.replace("\\", "\\\\").replace('"', '\\"').encode()
                part.content_disposition = given + b'; filename="' + quoted + b'"'
        super().on_headers_finished()


async def read_form(request: Request, settings: GatewaySettings) -> FormData:
    """The multipart form; files are spooled to disk past a megabyte.

    Raises:
        InvalidArgument: FORM_INVALID.
    """
    parser = FormParser(
        request.headers,
        request.stream(),
        max_files=settings.max_documents + 1,
        max_fields=MAX_FIELDS,
        max_part_size=settings.max_metadata_bytes * settings.max_documents,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(settings) from None
        raise InvalidArgument("FORM_INVALID", "The multipart form cannot be read.") from None


def from_form(form: FormData, settings: GatewaySettings) -> list[Upload]:
    """The form's files with their metadata.

    Raises:
        InvalidArgument: FILE_REQUIRED, UNKNOWN_FIELD, METADATA_INVALID, METADATA_TOO_LARGE,
            ACCESS_INVALID.
        ResourceExhausted: TOO_MANY_DOCUMENTS, DOCUMENT_TOO_LARGE.
    """
    for name in form:
        if name not in {"file", "metadata"}:
            raise InvalidArgument("UNKNOWN_FIELD", f"Unknown field: {name}.", field=name)
    files = [file for file in form.getlist("file") if isinstance(file, UploadFile)]
    if not files or len(files) != len(form.getlist("file")):
        raise InvalidArgument(
            "FILE_REQUIRED", "Send at least one file, each as a part named file.", field="file"
        )
    if len(files) > settings.max_documents:
        raise _too_many(settings)
    metadata = _form_metadata(form, len(files))
    return [_from_file(file, facts, settings) for file, facts in zip(files, metadata, strict=True)]


def from_documents(documents: Sequence[DocumentBody], settings: GatewaySettings) -> list[Upload]:
    """JSON documents, sent on as markdown files named by their ids.

    Raises:
        InvalidArgument: NESTED_TOO_DEEPLY, METADATA_TOO_LARGE.
        ResourceExhausted: TOO_MANY_DOCUMENTS, DOCUMENT_TOO_LARGE.
    """
    if len(documents) > settings.max_documents:
        raise _too_many(settings)
    return [
        _from_document(document, f"documents[{index}]", settings)
        for index, document in enumerate(documents)
    ]


def _from_document(document: DocumentBody, name: str, settings: GatewaySettings) -> Upload:
    text = document.text.encode()
    if len(text) > settings.max_document_bytes:
        raise _document_too_large(name, name, settings)
    check_metadata(document.metadata, f"{name}.metadata", settings)
    refuse_misplaced_access(document.metadata, name)
    id = document.id or hashlib.sha256(text).hexdigest()[:32]
    source = document.metadata.get("source")
    return Upload(
        id=id,
        filename=f"{id}.md",
        content=TextContent(text),
        size=len(text),
        name=name,
        param=name,
        content_type=MARKDOWN,
        title=document.title,
        source=source if isinstance(source, str) else "",
        metadata=document.metadata,
        access=tuple(document.access or ()),
    )


def _from_file(file: UploadFile, facts: Mapping[str, Any], settings: GatewaySettings) -> Upload:
    filename = (file.filename or "")[:MAX_FILENAME_CHARACTERS]
    size = file.size or 0
    if size > settings.max_document_bytes:
        raise _document_too_large(filename or "file", "file", settings)
    check_metadata(facts, "metadata", settings)
    id = facts.get("id", filename)
    if not isinstance(id, str) or not id:
        raise InvalidArgument(
            "DOCUMENT_ID_INVALID",
            "A file needs a name, or metadata with an id that is a text.",
            field="metadata.id" if "id" in facts else "file",
        )
    title, source = facts.get("title"), facts.get("source")
    return Upload(
        id=id,
        filename=filename or id,
        content=FileContent(file),
        size=size,
        name=filename or id,
        param="file",
        content_type=file.content_type or "",
        title=title if isinstance(title, str) else "",
        source=source if isinstance(source, str) else filename or id,
        metadata={key: value for key, value in facts.items() if key not in _RESERVED},
        access=read_access(facts["access"], "metadata.access") if "access" in facts else (),
    )


def read_access(value: Any, param: str) -> tuple[str, ...]:
    """An access list.

    Raises:
        InvalidArgument: ACCESS_INVALID. An empty list too: it could mean everybody or nobody.
    """
    entries = value if isinstance(value, list) else []
    if not 1 <= len(entries) <= MAX_ACCESS_ENTRIES or not all(
        isinstance(entry, str) and ACCESS_ENTRY.fullmatch(entry) for entry in entries
    ):
        raise InvalidArgument(
            "ACCESS_INVALID",
            f"{param} must list 1 to {MAX_ACCESS_ENTRIES} entries of the form user:NAME or "
            "group:NAME.",
            field=param,
        )
    return tuple(entries)


def refuse_misplaced_access(metadata: Mapping[str, Any], name: str) -> None:
    """Who puts the list into the metadata believes it to hold; ignoring it would publish.

    Raises:
        InvalidArgument: ACCESS_INVALID.
    """
    if "access" in metadata:
        raise InvalidArgument(
            "ACCESS_INVALID",
            f"{name}.metadata.access: the access list stands beside the metadata, not in it.",
            field=f"{name}.metadata.access",
        )


def check_metadata(metadata: Mapping[str, Any], name: str, settings: GatewaySettings) -> None:
    """Raises InvalidArgument: NESTED_TOO_DEEPLY, METADATA_TOO_LARGE."""
    if not metadata:
        return
    check_depth(metadata, name)
    if len(orjson.dumps(metadata)) > settings.max_metadata_bytes:
        raise InvalidArgument(
            "METADATA_TOO_LARGE",
            f"{name} is larger than {settings.max_metadata_bytes} bytes.",
            field=name,
        )


def _form_metadata(form: FormData, files: int) -> list[dict[str, Any]]:
    """One object a file: the form's object for all of them, or its list's, one each."""
    given = form.getlist("metadata")
    if not given or given == [""]:
        return [{}] * files
    if len(given) > 1 or not isinstance(given[0], str):
        raise InvalidArgument(
            "METADATA_INVALID", "Send metadata once, as JSON text.", field="metadata"
        )
    value = loads(given[0], "metadata")
    listed = value if isinstance(value, list) else [value] * files
    if len(listed) != files or not all(isinstance(facts, dict) for facts in listed):
        raise InvalidArgument(
            "METADATA_INVALID",
            "metadata must be a JSON object, or a list of one object a file.",
            field="metadata",
        )
    return listed


def _too_many(settings: GatewaySettings) -> Exception:
    return too_large(
        "TOO_MANY_DOCUMENTS", f"A call takes at most {settings.max_documents} documents."
    )


def _document_too_large(name: str, param: str, settings: GatewaySettings) -> Exception:
    return too_large(
        "DOCUMENT_TOO_LARGE",
        f"{name}: the document is larger than {settings.max_document_bytes} bytes.",
        field=param,
    )
