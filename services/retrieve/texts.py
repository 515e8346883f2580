"""What of a chunk is embedded, analysed and reranked."""

from collections.abc import Sequence

from services.retrieve.ports import Analyzer, Chunk, FieldTerms, StoredChunk
from services.text.normalize import normalize

_CONTEXT_CHARACTERS = 200


def indexed_text(title: str, chunk: Chunk) -> str:
    """Title and heading, where they say more, and the text."""
    return _in_context(title, chunk.heading, chunk.normalized_text)


def reranked_text(chunk: StoredChunk) -> str:
    """What was indexed of a stored chunk."""
    return _in_context(chunk.title, chunk.heading, normalize(chunk.text))


def _in_context(title: str, heading: str, text: str) -> str:
    context = [
        part[:_CONTEXT_CHARACTERS]
        for part in (title, heading)
        if part and not text.startswith(part)
    ]
    return "\n".join((*context, text))


def all_field_terms(analyzer: Analyzer, chunks: Sequence[tuple[str, Chunk]]) -> list[FieldTerms]:
    """Terms of chunks, given with their documents' titles, field by field."""
    return [field_terms(analyzer, title, chunk) for title, chunk in chunks]


def field_terms(analyzer: Analyzer, title: str, chunk: Chunk) -> FieldTerms:
    """A chunk's terms, field by field."""
    parts = [
        analyzer.fields(part)
        for part in (
            title[:_CONTEXT_CHARACTERS],
            chunk.heading[:_CONTEXT_CHARACTERS],
            chunk.normalized_text,
        )
    ]
    title_words, heading_words, body_words = (tuple(words) for words, _ in parts)
    bigrams = tuple(one for _, found in parts for one in found)
    return FieldTerms(title_words, heading_words, body_words, bigrams)
