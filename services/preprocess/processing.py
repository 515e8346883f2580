"""The work on one document, from bytes to chunks. Runs inside a worker process."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from services.preprocess.chunking import cut
from services.preprocess.documents import Chunk, Chunking, Extraction, Facts, Processed, Source
from services.preprocess.formats import recognise
from services.preprocess.ports import Parser, TokenCounter
from services.preprocess.refusals import empty

MAX_TITLE_CHARACTERS = 500


def process(
    source: Source,
    title: str,
    chunking: Chunking,
    parser_of: Callable[[str], Parser],
    counter: TokenCounter,
) -> Processed:
    """Parse and cut one document.

    Args:
        source: the file.
        title: the title to use; empty for the document's own.
        chunking: how to cut.
        parser_of: the parser of a format.
        counter: counts in the tokens of `chunking`.

    Raises:
        InvalidArgument: EMPTY_DOCUMENT, UNREADABLE_DOCUMENT, ENCRYPTED_DOCUMENT,
            UNSUPPORTED_FORMAT.
        ResourceExhausted: PARSE_LIMIT.
    """
    begin = time.perf_counter()
    format_name = recognise(source.data, source.filename, source.content_type)
    extraction = parser_of(format_name).parse(source)
    parsed = time.perf_counter()
    chunks = cut(extraction, chunking, counter)
    if not chunks:
        raise empty(source.filename, _without_text(format_name))
    facts = Facts(
        format=format_name,
        title=title_of(extraction, title, source.filename),
        language=main_language(chunks),
        pages=extraction.pages,
        characters=len(extraction.text),
        warnings=extraction.warnings,
    )
    return Processed(facts, tuple(chunks), parsed - begin, time.perf_counter() - parsed)


def title_of(extraction: Extraction, given: str, filename: str) -> str:
    """The given title, else the document's own, its first heading, or the file's name."""
    headings = (block.label for block in extraction.blocks if block.kind == "heading")
    stem = PurePosixPath(filename.replace("\\", "/")).name
    for candidate in (given, extraction.title, next(headings, ""), stem, filename):
        title = " ".join(candidate.split())[:MAX_TITLE_CHARACTERS]
        if title:
            return title
    return "document"


def main_language(chunks: list[Chunk]) -> str:
    """The language of most of the text; ``und`` when none is known."""
    characters: Counter[str] = Counter()
    for chunk in chunks:
        if chunk.language != "und":
            characters[chunk.language] += len(chunk.normalized_text)
    return characters.most_common(1)[0][0] if characters else "und"


def _without_text(format_name: str) -> str:
    if format_name == "pdf":
        return "has no text: pages that are pictures of text cannot be read by this version"
    return "has no text"
