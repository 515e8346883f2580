"""When a hit has anything to do with the query."""

import pytest

from services.retrieve.encoding import Encoder
from services.retrieve.ports import Candidate, StoredChunk
from services.retrieve.relevance import Scale, is_relevant, measure
from tests.unit.retrieve.fakes import WordModel

CHUNK = StoredChunk("c-0", "d", "text", "", "", None, "", "{}", "en")


@pytest.mark.parametrize(
    ("coverage", "document", "cosine", "scale", "expected"),
    [
        (0.4, 0.4, None, None, True),
        (0.39, 0.39, None, None, False),
        (0.2, 0.6, None, None, True),
        (0.1, 0.9, None, None, False),
        (0.0, 0.0, 0.5, Scale(0.0), True),
        (0.0, 0.0, 0.3, Scale(0.0), False),
        (0.0, 0.0, 0.75, Scale(0.7), False),
        (0.0, 0.0, 0.85, Scale(0.7), True),
        (0.0, 0.0, 0.9, None, False),
    ],
)
def test_relevance(coverage, document, cosine, scale, expected):
    candidate = Candidate(CHUNK, 1.0, dense_score=cosine)
    found = is_relevant(candidate, coverage=coverage, document_coverage=document, scale=scale)
    assert found == expected


async def test_an_encoder_is_measured_on_unrelated_texts():
    encoder = Encoder(WordModel(), batch_tokens=512, queue=100, query_cache=0)
    await encoder.start()
    try:
        scale = await measure(encoder)
    finally:
        await encoder.aclose()
    # Words in common ("the", "a") make sums of random directions a little alike.
    assert 0.0 <= scale.unrelated < 0.4
    assert scale.closeness(1.0) == pytest.approx(1.0)
    assert scale.closeness(scale.unrelated) == 0.0
