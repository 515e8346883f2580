"""When a hit has anything to do with the query.

A search always finds its nearest chunks, however far they are. Two things speak for a hit.

Words: how much of the weight (IDF) of the query's terms it or its document has. That is a share,
so it means the same in every collection; terms that a collection does not have weigh most, so a
question about something else covers little of its own weight (measured in ADR 0016).

Meaning: how much closer it is than unrelated texts are. Cosines of unrelated texts are about 0 with
one encoder and .7 with another, so the encoder is measured, once, on sentences about different
things.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.retrieve.encoding import Encoder
from services.retrieve.ports import Candidate, Matrix
from services.text.language import detect_language

MIN_COVERAGE = 0.4
"""Share of the query's weight that a relevant chunk has."""
MIN_DOCUMENT_COVERAGE = 0.6
"""Share that a relevant chunk's document has, where the chunk itself has half of the above."""
MIN_CLOSENESS = 0.43
"""Closeness in meaning that is enough: 0 is that of unrelated texts, 1 that of the same text."""

_UNRELATED = (
    "The recipe asks for two eggs, butter and a pinch of salt.",
    "Interest rates rose after the central bank met in March.",
    "The striker scored twice in the second half of the match.",
    "A new vaccine protects children against measles.",
    "The telescope photographed a galaxy ten billion light years away.",
    "To reset the router, hold the button for ten seconds.",
    "The court ruled that the contract was void.",
    "Bamboo grows faster than any other plant in the garden.",
    "砂糖と牛乳を混ぜて弱火で煮ます。",
    "日本銀行は政策金利を据え置いた。",
    "後半に二点を決めて試合に勝った。",
    "新しい地下鉄の駅は来年の春に開業する。",
    "その小説は江戸時代の商人を描いている。",
    "台風は九州の南の海上を北へ進んでいる。",
    "ルーターを再起動してから設定を開いてください。",
    "このカメラは暗い場所でも明るく撮れる。",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How one encoder's cosines are to be read."""

    unrelated: float
    """The mean cosine of unrelated texts."""

    def closeness(self, cosine: float) -> float:
        """0 as close as unrelated texts, 1 the same text."""
        return (cosine - self.unrelated) / max(1.0 - self.unrelated, 1e-6)


async def measure(encoder: Encoder) -> Scale:
    """An encoder's scale, from texts in the languages that it represents."""
    texts = [one for one in _UNRELATED if encoder.facts.covers(detect_language(one))]
    if len(texts) < 2:
        return Scale(0.0)
    encoded = await encoder.encode(await encoder.prepare(texts), query=True)
    return Scale(_mean_cosine(encoded.vectors, [detect_language(one) for one in texts]))


def _mean_cosine(vectors: Matrix, languages: Sequence[str]) -> float:
    """Over pairs of one language: texts in two languages are unlike for another reason."""
    cosines = vectors @ vectors.T
    pairs = [
        float(cosines[one, other])
        for one in range(len(languages))
        for other in range(one)
        if languages[one] == languages[other]
    ]
    return max(0.0, sum(pairs) / len(pairs)) if pairs else 0.0


def is_relevant(
    candidate: Candidate, *, coverage: float, document_coverage: float, scale: Scale | None
) -> bool:
    """Whether a candidate is worth answering.

    Args:
        candidate: with its dense score, where it has one.
        coverage: the chunk's share of the weight of the query's terms.
        document_coverage: that of its document, as far as it is among the candidates.
        scale: the encoder's; None where it does not represent the query or the chunk.
    """
    if coverage >= MIN_COVERAGE:
        return True
    if document_coverage >= MIN_DOCUMENT_COVERAGE and coverage >= MIN_COVERAGE / 2:
        return True
    if scale is None or candidate.dense_score is None:
        return False
    return scale.closeness(candidate.dense_score) >= MIN_CLOSENESS
