"""What of a chunk is embedded, analysed and reranked."""

from services.retrieve.ports import Chunk, StoredChunk
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
