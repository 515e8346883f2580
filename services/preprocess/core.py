"""What preprocess does: documents become chunks, questions become ones that stand alone."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from services.preprocess.conversation import Plan, Turn, plan
from services.preprocess.documents import Chunking, Processed, Source
from services.preprocess.ports import DocumentWorkers
from services.preprocess.refusals import empty, too_large
from services.preprocess.settings import PreprocessSettings
from services.runtime.errors import InvalidArgument, Unavailable

MAX_FILENAME_CHARACTERS = 1_024
DEFAULT_MAX_TOKENS = 200
MIN_MAX_TOKENS, MAX_MAX_TOKENS = 16, 8_192
_BUSY_RETRY_SECONDS = 2.0
_SHA256_HEX = 64


class TokenizerFiles:
    """Tokenizers' files by SHA-256, the least recently used dropped past the bound."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, tokenizer_id: str) -> bytes | None:
        file = self._files.get(tokenizer_id)
        if file is not None:
            self._files.move_to_end(tokenizer_id)
        return file

    def put(self, tokenizer_id: str, file: bytes) -> None:
        """Keep a file.

        Raises:
            InvalidArgument: TOKENIZER_INVALID, when its hash is not its id.
        """
        if hashlib.sha256(file).hexdigest() != tokenizer_id:
            raise InvalidArgument(
                "TOKENIZER_INVALID",
                "The tokenizer's file does not have the SHA-256 that names it.",
                field="tokenizer",
            )
        self.drop(tokenizer_id)
        self._files[tokenizer_id] = file
        self._bytes += len(file)
        while self._bytes > self._max_bytes and len(self._files) > 1:
            self.drop(next(iter(self._files)))

    def drop(self, tokenizer_id: str) -> None:
        self._bytes -= len(self._files.pop(tokenizer_id, b""))


class Upload:
    """One document on its way in, with its place among the documents that are worked on."""

    def __init__(
        self, core: "Preprocessor", filename: str, content_type: str, title: str, chunking: Chunking
    ) -> None:
        self._core = core
        self._filename = filename
        self._content_type = content_type
        self._title = title
        self._chunking = chunking
        self._tokenizer = core.tokenizers.get(chunking.tokenizer_id)
        self._tokenizer_parts: list[bytes] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._tokenizer_size = 0

    @property
    def tokenizer_needed(self) -> bool:
        """Whether the tokenizer's file must be sent first."""
        return bool(self._chunking.tokenizer_id) and self._tokenizer is None

    def add_tokenizer(self, part: bytes) -> None:
        """Raises InvalidArgument TOKENIZER_INVALID."""
        self._tokenizer_size += len(part)
        if not self.tokenizer_needed:
            raise InvalidArgument(
                "TOKENIZER_INVALID", "A tokenizer was sent but not asked for.", field="tokenizer"
            )
        if self._tokenizer_size > self._core.settings.max_tokenizer_bytes:
            raise InvalidArgument(
                "TOKENIZER_INVALID",
                "The tokenizer is larger than "
                f"{self._core.settings.max_tokenizer_bytes / 1e6:g} MB.",
                field="tokenizer",
            )
        self._tokenizer_parts.append(part)

    def add(self, part: bytes) -> None:
        """Raises ResourceExhausted DOCUMENT_TOO_LARGE, InvalidArgument TOKENIZER_INVALID."""
        self._take_tokenizer()
        self._size += len(part)
        if self._size > self._core.settings.max_document_bytes:
            raise too_large(self._filename, self._core.settings.max_document_bytes)
        self._parts.append(part)

    def _take_tokenizer(self) -> None:
        if not self.tokenizer_needed:
            return
        if not self._tokenizer_parts:
            raise InvalidArgument(
                "TOKENIZER_INVALID", "The tokenizer was asked for but not sent.", field="tokenizer"
            )
        file = b"".join(self._tokenizer_parts)
        self._tokenizer_parts.clear()
        self._core.tokenizers.put(self._chunking.tokenizer_id, file)
        self._tokenizer = file

    async def process(self) -> Processed:
        """Parse and cut what was sent.

        Raises:
            InvalidArgument: EMPTY_DOCUMENT, UNREADABLE_DOCUMENT, ENCRYPTED_DOCUMENT,
                UNSUPPORTED_FORMAT, TOKENIZER_INVALID.
            ResourceExhausted: PARSE_LIMIT.
        """
        if not self._size:
            raise empty(self._filename, "is empty: it has no bytes")
        self._take_tokenizer()
        data = b"".join(self._parts)
        self._parts.clear()
        source = Source(self._filename, self._content_type, data)
        try:
            return await self._core.workers.process(
                source, self._title, self._chunking, self._tokenizer
            )
        except InvalidArgument as error:
            if error.reason == "TOKENIZER_INVALID":
                self._core.tokenizers.drop(self._chunking.tokenizer_id)
            raise


class Preprocessor:
    """The service's use cases."""

    def __init__(self, workers: DocumentWorkers, settings: PreprocessSettings) -> None:
        self.workers = workers
        self.settings = settings
        self.tokenizers = TokenizerFiles(settings.tokenizer_cache_bytes)
        self._places = settings.parse_workers + settings.parse_queue

    @contextmanager
    def upload(
        self, filename: str, content_type: str, title: str, chunking: Chunking
    ) -> Iterator[Upload]:
        """Begin a document; it holds one of the bounded places until the block ends.

        Raises:
            InvalidArgument: INVALID_CHUNKING; UNREADABLE_DOCUMENT for a name that is no name.
            Unavailable: PARSER_BUSY, when every worker is taken and the queue is full.
        """
        check_filename(filename)
        chunking = checked_chunking(chunking)
        if self._places <= 0:
            raise Unavailable(
                "PARSER_BUSY",
                "Every document parser is busy; try again in a moment.",
                retry_after=_BUSY_RETRY_SECONDS,
            )
        self._places -= 1
        try:
            yield Upload(self, filename, content_type, title, chunking)
        finally:
            self._places += 1

    def plan_query(self, query: str, history: Sequence[Turn], max_characters: int) -> Plan:
        """A query that stands alone, or what a model needs to rewrite it.

        Raises:
            InvalidArgument: QUERY_EMPTY, QUERY_TOO_LONG.
        """
        limit = max_characters if max_characters > 0 else self.settings.max_query_characters
        return plan(query, history, limit)


def check_filename(filename: str) -> None:
    """Raises InvalidArgument UNREADABLE_DOCUMENT."""
    if not filename.strip():
        raise InvalidArgument(
            "UNREADABLE_DOCUMENT", "A document needs a file name.", field="filename"
        )
    if len(filename) > MAX_FILENAME_CHARACTERS:
        raise InvalidArgument(
            "UNREADABLE_DOCUMENT",
            f"A file name has at most {MAX_FILENAME_CHARACTERS:,} characters.",
            field="filename",
        )


def checked_chunking(chunking: Chunking) -> Chunking:
    """The chunking with its defaults in place.

    Raises:
        InvalidArgument: INVALID_CHUNKING, naming the field.
    """
    max_tokens = chunking.max_tokens or DEFAULT_MAX_TOKENS
    if not MIN_MAX_TOKENS <= max_tokens <= MAX_MAX_TOKENS:
        raise InvalidArgument(
            "INVALID_CHUNKING",
            f"max_tokens lies between {MIN_MAX_TOKENS} and {MAX_MAX_TOKENS:,}.",
            field="chunking.max_tokens",
        )
    if not 0 <= chunking.overlap_tokens < max_tokens / 2:
        raise InvalidArgument(
            "INVALID_CHUNKING",
            "overlap_tokens lies between 0 and half of max_tokens, which it must stay below.",
            field="chunking.overlap_tokens",
        )
    if chunking.tokenizer_id and (
        len(chunking.tokenizer_id) != _SHA256_HEX
        or not set(chunking.tokenizer_id) <= set("0123456789abcdef")
    ):
        raise InvalidArgument(
            "TOKENIZER_INVALID",
            "A tokenizer is named by the SHA-256 of its file, 64 digits in lower case.",
            field="chunking.tokenizer_id",
        )
    return replace(chunking, max_tokens=max_tokens)
