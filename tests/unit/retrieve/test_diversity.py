"""Maximal marginal relevance."""

import numpy as np
import pytest

from services.retrieve.diversity import diversify, term_similarity, vector_similarity

ALIKE = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32)


@pytest.mark.parametrize(
    ("diversity", "order"), [(0.0, [0, 1, 2]), (0.4, [0, 1, 2]), (0.6, [0, 2, 1]), (1.0, [0, 2, 1])]
)
def test_a_copy_gives_way_as_diversity_grows(diversity, order):
    assert diversify([1.0, 0.9, 0.0], ALIKE, diversity) == order


def test_the_order_is_a_permutation_and_begins_with_the_best():
    dice = np.random.default_rng(7)
    for count in (1, 2, 30):
        scores = dice.random(count).tolist()
        vectors = [row.tobytes() for row in _unit(dice.normal(size=(count, 4)))]
        order = diversify(scores, vector_similarity(vectors), 0.5)
        assert sorted(order) == list(range(count))
        assert order[0] == int(np.argmax(scores))
    assert diversify([], np.zeros((0, 0), np.float32), 0.5) == []


def test_equal_scores_are_ordered_by_novelty():
    assert diversify([2.0, 2.0, 2.0], ALIKE, 0.5) == [0, 2, 1]


def test_similarity_of_vectors_is_their_cosine():
    vectors = _unit(np.array([[1, 0], [1, 1], [-1, 0]]))
    similarity = vector_similarity([row.tobytes() for row in vectors])
    assert similarity[0] == pytest.approx([1.0, np.sqrt(0.5), 0.0], abs=1e-6)


def test_similarity_of_terms_is_what_they_share():
    similarity = term_similarity([{1, 2}, {2, 3}, {4}, set()])
    assert similarity[0] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert similarity[3] == pytest.approx([0.0] * 4)


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")
