"""Content terms: what two texts must share to be about the same thing."""

import re
import threading
from functools import lru_cache
from importlib.resources import files

import Stemmer

from services.text.normalize import normalize

_RUN = re.compile(
    r"(?P<word>[a-z0-9]+(?:[._'/-][a-z0-9]+)*)"
    r"|(?P<katakana>[\u30a1-\u30fa\u30fc-\u30ff]+)"
    r"|(?P<han>[\u3005\u3006\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)"
    r"|(?P<hiragana>[\u3041-\u309f]+)"
    r"|(?P<other>[^\W\d_]+|\d+)"
)
_PART = re.compile(r"[a-z]+|\d+")


class _Stemmers(threading.local):
    """One stemmer a thread: it keeps the word in itself, and ingest counts terms in threads."""

    def __init__(self) -> None:
        self.english = Stemmer.Stemmer("english", 0)  # `_stem` keeps what was asked


_STEMMERS = _Stemmers()


def _words_of(name: str) -> frozenset[str]:
    return frozenset(files(__package__).joinpath(name).read_text(encoding="utf-8").split())


# Function words of English: they say nothing about the subject.
_STOP_WORDS = _words_of("stop_words_en.txt")
# Hiragana runs that are particles, auxiliaries or demonstratives; longer ones carry meaning.
_PARTICLES = _words_of("function_words_ja.txt")
_MIN_HIRAGANA = 2


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return str(_STEMMERS.english.stemWord(word))


def content_terms(text: str) -> list[str]:
    """Return the content terms of ``text`` in order, repeats kept.

    Latin words are lower-cased, stemmed (Porter2) and freed of stop words; compounds such as
    ``grpc-status`` also give their parts. Kanji runs give character bigrams (a single kanji stands
    alone), katakana runs stay whole and give bigrams as well when longer than three, hiragana runs
    count unless they are function words. Normalises by itself. Never raises.
    """
    terms: list[str] = []
    for match in _RUN.finditer(normalize(text).lower()):
        kind, run = match.lastgroup, match[0]
        if kind == "word":
            _words(run, terms)
        elif kind == "katakana":
            terms.append(run.rstrip("ー") or run)
            if len(run) > 3:  # shorter words have no meaningful parts
                terms.extend(_bigrams(run))
        elif kind == "han":
            terms.extend(_bigrams(run) if len(run) > 1 else [run])
        elif kind == "hiragana":
            if len(run) >= _MIN_HIRAGANA and run not in _PARTICLES:
                terms.append(run)
        else:
            terms.append(run)
    return terms


def _words(run: str, terms: list[str]) -> None:
    word = run[:-2] if run.endswith("'s") else run
    if word in _STOP_WORDS:
        return
    terms.append(_stem(word))
    parts = _PART.findall(word)
    if len(parts) > 1:
        terms.extend(_stem(part) for part in parts if len(part) > 1 and part not in _STOP_WORDS)


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]
