"""Analysing chunks for the sparse arm: pure Python, so never on the event loop."""

import asyncio
from collections.abc import Mapping, Sequence

from services.retrieve.ports import Analyzer, Chunk, FieldTerms, SparseVector
from services.retrieve.texts import all_field_terms


class Analysis:
    """What an analyser makes of chunks, in threads of this process."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer

    async def start(self) -> None:
        """Return when questions can be analysed."""
        await asyncio.to_thread(self.analyzer.start)

    async def aclose(self) -> None:
        """Let go of everything."""

    async def documents(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        averages: Mapping[str, Sequence[float]],
    ) -> list[SparseVector]:
        """The sparse vectors of normalised texts; see `Analyzer.document`."""
        return await asyncio.to_thread(documents, self.analyzer, texts, languages, averages)

    async def lengths(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """How many terms the fields of each text have; see `Analyzer.lengths`."""
        return await asyncio.to_thread(lengths, self.analyzer, texts)

    async def field_terms(self, chunks: Sequence[tuple[str, Chunk]]) -> list[FieldTerms]:
        """The terms of chunks, given with their documents' titles, field by field."""
        return await asyncio.to_thread(all_field_terms, self.analyzer, chunks)


def documents(
    analyzer: Analyzer,
    texts: Sequence[str],
    languages: Sequence[str],
    averages: Mapping[str, Sequence[float]],
) -> list[SparseVector]:
    """The sparse vectors of texts; blocks."""
    pairs = zip(texts, languages, strict=True)
    return [analyzer.document(text, language, averages) for text, language in pairs]


def lengths(analyzer: Analyzer, texts: Sequence[str]) -> list[tuple[float, ...]]:
    """The lengths of texts; blocks."""
    return [analyzer.lengths(text) for text in texts]
