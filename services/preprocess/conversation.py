"""Planning a query: cleaned, its language known, and able to stand alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.preprocess.followups import Kind, completed, kind_of, topic_of
from services.runtime.errors import InvalidArgument
from services.text.language import detect_language
from services.text.normalize import normalize

# How far back a topic may lie, and how much of the conversation a rewrite is given.
MAX_TURNS = 8
# An earlier question is only context: more of it than this drowns the present one.
MAX_CONTEXT_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the conversation; what tools and the system said counts as not the user's."""

    by_user: bool
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A query that stands alone."""

    text: str
    normalized: str
    language: str
    rewritten: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to search with, and whether a model should rewrite it first."""

    asked: str
    """The question as it was asked, trimmed."""
    language: str
    query: Query
    """What to search with; the fallback when a rewrite is wished for."""
    rewrite_turns: tuple[int, ...] | None = None
    """Positions in the history that a rewriting model should see; None when rules sufficed."""


@dataclass(frozen=True, slots=True)
class _Thread:
    """The conversation so far, as the rules understand it."""

    question: str = ""
    """The last question, in its stand-alone form."""
    topic: str = ""


def plan(query: str, history: Sequence[Turn], max_characters: int) -> Plan:
    """Plan a query.

    Args:
        query: the question as the person wrote it.
        history: the conversation before it, oldest first.
        max_characters: the longest query allowed.

    Raises:
        InvalidArgument: QUERY_EMPTY or QUERY_TOO_LONG, field ``query``.
    """
    if len(query) > max_characters:
        raise InvalidArgument(
            "QUERY_TOO_LONG",
            f"The query has {len(query):,} characters; the most is {max_characters:,}.",
            field="query",
        )
    asked = query.strip()
    normalized = normalize(asked)
    if not _is_visible(normalized):
        raise InvalidArgument("QUERY_EMPTY", "The query is empty.", field="query")
    language = detect_language(normalized)
    turns = [
        (index, text)
        for index, turn in enumerate(history)
        if turn.by_user and _is_visible(text := normalize(turn.text))
    ][-MAX_TURNS:]
    kind = kind_of(normalized, language) if turns else Kind.STANDALONE
    if kind is Kind.STANDALONE:
        return Plan(asked, language, Query(asked, normalized, language, False))
    thread = _Thread()
    for _, text in turns:
        thread = _followed(thread, text)
    text, sure = _completed(normalized, language, kind, thread)
    standalone = Query(text, normalize(text), language, True)
    if sure:
        return Plan(asked, language, standalone)
    first = turns[max(0, len(turns) - MAX_TURNS // 2)][0]
    return Plan(asked, language, standalone, tuple(range(first, len(history))))


def _is_visible(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _followed(thread: _Thread, text: str) -> _Thread:
    """The thread after one more question of the user."""
    language = detect_language(text)
    kind = kind_of(text, language) if thread.question else Kind.STANDALONE
    if kind is Kind.STANDALONE:
        return _Thread(text, topic_of(text, language))
    whole, _ = _completed(text, language, kind, thread)
    if kind is Kind.REFERENCE:
        return _Thread(whole, thread.topic)
    if kind is Kind.BARE:
        return thread
    # "And Qdrant?" moves on: what a pronoun means from here on is not for a rule to say.
    return _Thread(whole, thread.topic if whole == thread.question else "")


def _completed(query: str, language: str, kind: Kind, thread: _Thread) -> tuple[str, bool]:
    """The follow-up with what it leaves out, and whether that is surely what was meant."""
    if kind is Kind.REFERENCE and thread.topic:
        text = completed(query, language, thread.topic)
        if text:
            return text, True
    context = thread.question[-MAX_CONTEXT_CHARACTERS:]
    joined = f"{context} {query}" if context else query
    # A fragment beside its question is understood by people, search and models alike. A bare "why"
    # is about the answer, and a pronoun without a known topic may be about anything in it.
    return joined, kind is Kind.FRAGMENT and bool(context)
