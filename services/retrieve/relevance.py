"""When a hit has anything to do with the query.

A search always finds its nearest chunks, however far they are. Two things speak for a hit: how
much of the weight (IDF) of the query's terms it or its document has, and how close it is in
meaning. The first needs no calibration, as it is a share: terms that a collection does not have
weigh most, so a question about something else covers little of its own weight. The second depends
on the encoder; the bound below is far above what unrelated passages reach with the encoders at
hand, and a scale of its own per collection belongs to the calibration.
"""

from services.retrieve.ports import Candidate

MIN_COVERAGE = 0.4
"""Share of the query's weight that a relevant chunk has."""
MIN_DOCUMENT_COVERAGE = 0.6
"""Share that a relevant chunk's document has, where the chunk itself has half of the above."""
MIN_COSINE = 0.5
"""Closeness in meaning that is enough by itself."""


def is_relevant(
    candidate: Candidate, *, coverage: float, document_coverage: float, dense_counts: bool
) -> bool:
    """Whether a candidate is worth answering.

    Args:
        candidate: with its dense score, where it has one.
        coverage: the chunk's share of the weight of the query's terms.
        document_coverage: that of its document, as far as it is among the candidates.
        dense_counts: whether the encoder represents the query and the chunk.
    """
    if coverage >= MIN_COVERAGE:
        return True
    if document_coverage >= MIN_DOCUMENT_COVERAGE and coverage >= MIN_COVERAGE / 2:
        return True
    close = candidate.dense_score is not None and candidate.dense_score >= MIN_COSINE
    return dense_counts and close
