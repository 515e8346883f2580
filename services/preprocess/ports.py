"""What the core needs from the outside."""

from collections.abc import Sequence
from typing import Protocol

from services.preprocess.documents import Chunking, Extraction, Processed, Source


class Parser(Protocol):
    """Reads one format. Runs in a worker process; must be safe to kill at any point."""

    def parse(self, source: Source) -> Extraction:
        """Read the document.

        Raises:
            InvalidArgument: UNREADABLE_DOCUMENT or ENCRYPTED_DOCUMENT, naming the file.
            ResourceExhausted: PARSE_LIMIT, naming the file and the limit.
        """
        ...


class TokenCounter(Protocol):
    """Counts tokens as an encoder does, special tokens not included."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order. Linear in the length of the texts."""
        ...


class DocumentWorkers(Protocol):
    """Bounded processes that parse and cut documents."""

    async def process(
        self, source: Source, title: str, chunking: Chunking, tokenizer: bytes | None
    ) -> Processed:
        """Parse and cut one document; cancelling kills the work.

        Raises:
            InvalidArgument: EMPTY_DOCUMENT, UNREADABLE_DOCUMENT, ENCRYPTED_DOCUMENT,
                UNSUPPORTED_FORMAT, TOKENIZER_INVALID.
            ResourceExhausted: PARSE_LIMIT.
        """
        ...

    async def ready(self) -> None:
        """Return when every worker is warm."""
        ...

    async def aclose(self) -> None:
        """End the workers."""
        ...
