"""What of a chunk is embedded and analysed."""

from services.retrieve.ports import Chunk

_CONTEXT_CHARACTERS = 200


def indexed_text(title: str, chunk: Chunk) -> str:
    """Title and heading, where they say more, and the text."""
    context = [
        part[:_CONTEXT_CHARACTERS]
        for part in (title, chunk.heading)
        if part and not chunk.normalized_text.startswith(part)
    ]
    return "\n".join((*context, chunk.normalized_text))
