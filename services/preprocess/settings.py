"""Settings of preprocess."""

from typing import ClassVar

from pydantic import Field

from services.runtime.settings import RuntimeSettings


class PreprocessSettings(RuntimeSettings):
    """Each is read from ``RAGMESH_`` and its name in capitals."""

    service: ClassVar[str] = "preprocess"

    max_document_bytes: int = Field(50_000_000, ge=1)
    """The largest document that is accepted."""
    parse_workers: int = Field(2, ge=1, le=256)
    """Processes that parse; each takes one document at a time."""
    parse_queue: int = Field(16, ge=0)
    """Documents that may wait for a worker; the next one is told PARSER_BUSY."""
    parse_seconds: float = Field(120.0, gt=0)
    """Wall time that one document may take."""
    parse_memory_bytes: int = Field(1_500_000_000, ge=100_000_000)
    """Writable memory of one worker."""
    parse_documents_per_worker: int = Field(500, ge=1)
    """Documents after which a worker is replaced."""
    upload_idle_seconds: float = Field(30.0, gt=0)
    """How long a client may pause in the middle of an upload."""
    tokenizer_cache_bytes: int = Field(128_000_000, ge=0)
    """Memory for tokenizers' files, which then need not be sent again."""
    max_tokenizer_bytes: int = Field(64_000_000, ge=1)
    """The largest tokenizer that is accepted."""
    max_query_characters: int = Field(8_000, ge=1)
    """The longest query, when the caller does not say."""
