"""The analyser of the sparse arm with a Japanese dictionary: SudachiPy beside character bigrams.

Japanese is cut into Sudachi's short units (mode A) in their normalised form, so that サーバ is
サーバー and 附属 is 付属, without particles and auxiliaries. The bigrams of `terms` stay beside
them at a lower weight: they find what the dictionary cuts differently in question and chunk, such
as new names (ADR 0015). Everything that is not Japanese is analysed as without a dictionary.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from services.retrieve.bm25 import frequencies, query_vector, weighted
from services.retrieve.ports import SparseVector
from services.runtime.errors import FailedPrecondition
from services.text.normalize import normalize
from services.text.terms import content_terms

try:
    import sudachipy
except ImportError:
    sudachipy = None

_DICTIONARY = "sudachidict_core"
_JAPANESE = re.compile(
    r"[\u3005\u3006\u3041-\u309f\u30a1-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)
# Particles, auxiliaries, auxiliary verbs and adjectives, blanks and signs.
_FUNCTION = frozenset({"助詞", "助動詞", "空白", "記号", "補助記号"})
_AUXILIARY = "非自立可能"
_HIRAGANA = re.compile(r"[\u3041-\u309f]+")
# Sudachi refuses inputs above 49,149 bytes, and holds the interpreter lock while it reads one.
_PIECE = 2_000
_BREAK = re.compile(r"[。！？\n]")

_WORDS_WEIGHT = 0.7
_BIGRAMS_WEIGHT = 0.3
# Words and bigrams of a typical chunk, while a collection has no averages of its own.
_TYPICAL = {"ja": (100.0, 130.0)}
_TYPICAL_ELSEWHERE = (100.0, 10.0)


def installed() -> bool:
    """Whether SudachiPy and its dictionary are there."""
    return sudachipy is not None and _dictionary_version() is not None


class MorphemesAnalyzer:
    """BM25 weights of morphemes and stems, and, apart from them, of Japanese bigrams."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._dictionary: Any = None
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        return f"morphemes@1-{_DICTIONARY}-{_dictionary_version()}"

    def start(self) -> None:
        """Load the dictionary: about a second.

        Raises:
            FailedPrecondition: ANALYZER_UNREADABLE.
        """
        with self._lock:
            if self._dictionary is None:
                if not installed():
                    raise FailedPrecondition(
                        "ANALYZER_UNREADABLE",
                        "RAGMESH_ANALYZER=morphemes needs the extra ragmesh[japanese].",
                    )
                self._dictionary = sudachipy.Dictionary(dict="core")

    def lengths(self, text: str) -> tuple[float, ...]:
        words, bigrams = self.fields(text)
        return float(len(words)), float(len(bigrams))

    def document(
        self, text: str, language: str, averages: Mapping[str, Sequence[float]]
    ) -> SparseVector:
        words, bigrams = self.fields(text)
        typical = averages.get(language) or _TYPICAL.get(language, _TYPICAL_ELSEWHERE)
        return weighted(
            [(frequencies(words), typical[0]), (frequencies(bigrams), max(1.0, typical[1]))]
        )

    def query(self, text: str, language: str) -> SparseVector:
        words, bigrams = self.fields(text)
        return query_vector([(Counter(words), _WORDS_WEIGHT), (Counter(bigrams), _BIGRAMS_WEIGHT)])

    def fields(self, text: str) -> tuple[list[str], list[str]]:
        """Words of every script, and the terms that the analyser without a dictionary makes of
        Japanese; those carry a mark, as a word of two letters is no bigram."""
        words, bigrams = [], []
        text = normalize(text)
        for term in content_terms(text):
            if _JAPANESE.search(term):
                bigrams.append("\0" + term)
            else:
                words.append(term)
        if bigrams:
            for piece in _pieces(text):
                words.extend(self._morphemes(piece))
        return words, bigrams

    def _morphemes(self, piece: str) -> Iterator[str]:
        for one in self._tokenizer().tokenize(piece, sudachipy.SplitMode.A):
            if not _JAPANESE.search(one.surface()):
                continue
            speech = one.part_of_speech()
            form = one.normalized_form()
            # する, いる, こと and their like say nothing; 付く written with a kanji may.
            auxiliary = speech[1] == _AUXILIARY and _HIRAGANA.fullmatch(one.surface())
            if speech[0] not in _FUNCTION and not auxiliary:
                yield form.lower()

    def _tokenizer(self) -> Any:
        """A tokenizer must not be used by two threads at once, so each has its own."""
        tokenizer = getattr(self._local, "tokenizer", None)
        if tokenizer is None:
            self.start()
            tokenizer = self._local.tokenizer = self._dictionary.tokenizer()
        return tokenizer


def _pieces(text: str) -> Iterator[str]:
    """Parts of at most `_PIECE` characters, cut behind a sentence where there is one."""
    start = 0
    while start < len(text):
        end = min(start + _PIECE, len(text))
        if end < len(text):
            ends = [found.end() for found in _BREAK.finditer(text, start, end)]
            end = ends[-1] if ends else end
        yield text[start:end]
        start = end


@cache
def _dictionary_version() -> str | None:
    """Read once: every search compares it, and finding it reads a file of the package."""
    try:
        return version(_DICTIONARY)
    except PackageNotFoundError:
        return None
