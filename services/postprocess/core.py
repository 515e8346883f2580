"""Finishes an answer: citations, confidence, format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.postprocess.markers import Marked, Resolved, resolve
from services.postprocess.plain import to_plain
from services.postprocess.ports import Answer, Citation, Draft, Format, Passage, Sentence
from services.postprocess.support import best_quote, containment, weighted_terms
from services.runtime.errors import InvalidArgument
from services.text.terms import content_terms

UNANSWERED_CEILING = 0.1
"""The most confidence that an answer without a citation can have."""

_ASSENT = frozenset(content_terms("yes no correct right true false はい いいえ ええ"))


@dataclass(frozen=True, slots=True)
class Judged:
    """A sentence with its support; `counts`: whether it makes a claim that can be supported."""

    sentence: Sentence
    counts: bool


def process(draft: Draft, max_characters: int) -> Answer:
    """Finish an answer.

    Raises:
        InvalidArgument: ANSWER_TOO_LONG; SUPPORT_MALFORMED, when a row of semantic support does
            not have a figure for each passage.
    """
    if len(draft.text) > max_characters:
        raise InvalidArgument(
            "ANSWER_TOO_LONG", f"text is longer than {max_characters} characters.", field="text"
        )
    if any(len(row) != len(draft.passages) for row in draft.semantic):
        raise InvalidArgument(
            "SUPPORT_MALFORMED",
            "Each row of semantic_support needs one figure a passage.",
            field="semantic_support",
        )
    passages = {passage.marker: passage for passage in draft.passages if passage.marker > 0}
    resolved = resolve(draft.text, () if draft.unanswered else passages)
    evidence = {marker: _terms_of(passage) for marker, passage in passages.items()}
    columns = {passage.marker: i for i, passage in enumerate(draft.passages)}
    judged = [
        _judge(
            marked, draft, evidence, columns, draft.semantic[i] if i < len(draft.semantic) else ()
        )
        for i, marked in enumerate(resolved.sentences)
    ]
    text = to_plain(resolved.text) if draft.format is Format.PLAIN else resolved.text.strip()
    return Answer(
        text,
        tuple(_cite(passages[marker], judged) for marker in resolved.order),
        _confidence(draft, resolved, judged, evidence),
        tuple(item.sentence for item in judged),
    )


def _judge(
    marked: Marked,
    draft: Draft,
    evidence: Mapping[int, frozenset[str]],
    columns: Mapping[int, int],
    semantic: Sequence[float],
) -> Judged:
    terms = weighted_terms(marked.text)
    if marked.markers and not terms.keys() - _ASSENT:
        # "Yes. [1]" claims what the question asks.
        terms = weighted_terms(draft.query)
    cited = frozenset[str]().union(*(evidence[marker] for marker in marked.markers))
    support = containment(terms, cited)
    if semantic and marked.markers:
        meant = max(_unit(semantic[columns[marker]]) for marker in marked.markers)
        support = max(support, (support + meant) / 2)
    counts = bool(terms) and not _is_lead_in(marked)
    return Judged(Sentence(marked.text, marked.markers, support), counts)


def _is_lead_in(marked: Marked) -> bool:
    """A heading, or a line that leads into a list, claims nothing by itself."""
    text = marked.text.rstrip()
    return not marked.markers and (text.startswith("#") or text.endswith((":", "：")))


def _cite(passage: Passage, judged: Sequence[Judged]) -> Citation:
    claims = [j.sentence for j in judged if passage.marker in j.sentence.markers]
    quote, support = best_quote(" ".join(claim.text for claim in claims), passage.text)
    best = max((claim.support for claim in claims), default=0.0)
    return Citation(passage, quote, min(1.0, max(support, best)))


def _confidence(
    draft: Draft,
    resolved: Resolved,
    judged: Sequence[Judged],
    evidence: Mapping[int, frozenset[str]],
) -> float:
    asked = weighted_terms(draft.query)
    if not resolved.order:
        # Nothing is cited: what little there is says how near the passages came.
        near = max((containment(asked, terms) for terms in evidence.values()), default=0.0)
        return UNANSWERED_CEILING * near
    claims = [item.sentence.support for item in judged if item.counts]
    mean = sum(claims) / len(claims) if claims else 0.0
    if not asked:
        return mean
    cited = frozenset(content_terms(resolved.text)).union(*(evidence[m] for m in resolved.order))
    return mean * (0.5 + 0.5 * containment(asked, cited))


def _terms_of(passage: Passage) -> frozenset[str]:
    return frozenset(content_terms(f"{passage.title}\n{passage.heading}\n{passage.text}"))


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value)) if not math.isnan(value) else 0.0
