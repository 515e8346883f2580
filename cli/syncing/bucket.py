"""A bucket as a source: S3 and what speaks like it, Google Cloud Storage, Azure."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urlsplit

from cli.console import Failure
from cli.syncing.entries import (
    Content,
    Entry,
    Known,
    NotRead,
    Skipped,
    Spool,
    digest_of,
    is_supported,
    kind_of,
    problem_of,
)

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_IN_MEMORY_BYTES = 4 * 1024 * 1024


class BucketSource:
    """Objects below a prefix.

    obstore signs the requests; it finds keys where the vendors' own tools do: in the environment
    (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT``, ``AWS_ALLOW_HTTP``, ``GOOGLE_APPLICATION_CREDENTIALS``
    …), or of the machine's role.
    """

    def __init__(self, url: str, *, alias: str = "", max_bytes: int) -> None:
        """Args:
        url: such as ``s3://bucket/prefix``.
        alias: as in `FolderSource`.
        max_bytes: larger objects are left out.

        Raises:
            Failure: obstore is not installed, or refuses the address.
        """
        try:
            # Only who syncs a bucket has it installed.
            import obstore  # noqa: PLC0415
            from obstore.store import from_url  # noqa: PLC0415
        except ImportError:
            raise Failure(
                "Buckets need the package obstore: pip install 'ragmesh[sync]'.",
                code="extra_not_installed",
            ) from None
        parts = urlsplit(url)
        self._url = f"{parts.scheme}://{parts.hostname or ''}{parts.path}".rstrip("/")
        self._alias = alias
        self._max_bytes = max_bytes
        self._obstore: Any = obstore
        try:
            self._store: Any = from_url(url.rstrip("/"))
        except Exception as error:  # its errors have no common base
            raise Failure(
                f"{self._url} cannot be opened ({type(error).__name__}).", code="no_such_source"
            ) from error
        self._complete = True
        self._spool = Spool()

    @property
    def name(self) -> str:
        return f"bucket:{self._alias}" if self._alias else self._url

    @property
    def complete(self) -> bool:
        return self._complete

    def entries(self) -> Iterator[Entry | Skipped]:
        self._complete = True
        try:
            for page in self._store.list():
                for found in page:
                    yield self._entry(found)
        except Exception as error:
            raise Failure(
                f"{self._url} cannot be listed ({_kind(error)}).", code="source_unreadable"
            ) from error

    def _entry(self, found: Any) -> Entry | Skipped:
        key, size = str(found["path"]), int(found["size"])
        name = PurePosixPath(key).name
        if any(part.startswith(".") for part in PurePosixPath(key).parts):
            return Skipped(key, "it is hidden")
        if not is_supported(name):
            return Skipped(key, "its format is not supported")
        if problem := problem_of(key):
            return Skipped(key, problem)
        if size > self._max_bytes:
            return Skipped(key, f"it is larger than {self._max_bytes} bytes")
        if not size:
            return Skipped(key, "it is empty")
        tag = found.get("e_tag") or found["last_modified"].isoformat()
        return Entry(key, name, key, f"{size} {tag} {found.get('version') or ''}".strip())

    def open(self, entry: Entry, known: Known | None) -> Content | None:
        if kept := self._spool.take(entry.id):
            return kept
        spooled = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        try:
            size = 0
            for piece in self._store.get(entry.place).stream(min_chunk_size=1 << 20):
                size += len(piece)
                if size > self._max_bytes:
                    raise NotRead(f"it is larger than {self._max_bytes} bytes", fatal=False)
                spooled.write(bytes(piece))
        except NotRead:
            spooled.close()
            raise
        except Exception as error:
            spooled.close()
            gone = isinstance(error, self._obstore.exceptions.NotFoundError | FileNotFoundError)
            raise NotRead(f"it cannot be read ({_kind(error)})", gone=gone) from error
        file = cast(BinaryIO, cast(IO[bytes], spooled))
        digest, size = digest_of(file)
        return Content(file, digest, size, kind_of(entry.name), entry.name, entry.stamp)

    def keep(self, entry: Entry, content: Content) -> None:
        self._spool.keep(entry.id, content)

    def close(self) -> None:
        self._spool.close()


def _kind(error: Exception) -> str:
    return type(error).__name__.removesuffix("Error")
