import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.fusion import (
    BOTH,
    DENSE_ONLY,
    DEPTH,
    SPARSE_ONLY,
    arm_weights,
    covered_languages,
    fuse,
    normalised,
)
from services.retrieve.ports import ArmWeights
from tests.unit.retrieve.fakes import WordModel

ENGLISH = WordModel().load()


@pytest.mark.parametrize(
    ("language", "unknown", "languages", "has_terms", "expected"),
    [
        ("en", 0.0, {"en": 5}, True, BOTH),
        ("en", 0.0, {"en": 5, "ja": 50}, True, BOTH),
        ("und", 0.0, {"en": 5}, True, BOTH),
        ("ja", 0.0, {"ja": 5}, True, SPARSE_ONLY),
        ("ja", 0.0, {"en": 5}, True, SPARSE_ONLY),
        ("en", 0.0, {"ja": 5}, True, SPARSE_ONLY),
        ("en", 0.0, {"en": 0, "ja": 5}, True, SPARSE_ONLY),
        ("en", 0.8, {"en": 5}, True, SPARSE_ONLY),
        ("en", 0.0, {"en": 5}, False, DENSE_ONLY),
    ],
)
def test_weights_know_when_the_dense_arm_is_worthless(
    language, unknown, languages, has_terms, expected
):
    assert (
        arm_weights(ENGLISH, language, unknown, languages, has_terms=has_terms, measured={})
        == expected
    )


def test_covered_languages_are_those_of_the_encoder_that_are_there():
    assert covered_languages(ENGLISH, {"ja": 3, "en": 1, "und": 2, "fr": 1}, {}) == ("en", "und")


def test_first_in_both_arms_scores_one():
    fused = fuse([(7, 0.9), (8, 0.5)], [(7, 12.0), (9, 3.0)], BOTH)
    assert [hit.id for hit in fused] == [7, 8, 9]
    assert fused[0].score == pytest.approx(1.0)
    assert (fused[2].dense_rank, fused[2].sparse_rank) == (None, 2)
    assert (fused[1].dense_score, fused[1].sparse_score) == (0.5, None)


def test_one_arm_keeps_its_own_scores():
    fused = fuse([], [(1, 2.5), (2, 7.5)], SPARSE_ONLY)
    assert [(hit.id, hit.score, hit.sparse_rank) for hit in fused] == [(2, 7.5, 1), (1, 2.5, 2)]


def test_equal_scores_are_ordered_by_id_whatever_the_engine_said():
    assert fuse([(3, 0.5), (1, 0.5)], [], DENSE_ONLY) == fuse([(1, 0.5), (3, 0.5)], [], DENSE_ONLY)


rankings = st.dictionaries(
    st.integers(0, 400), st.integers(-5, 30).map(lambda tenths: tenths / 10), max_size=DEPTH + 50
).map(lambda scores: list(scores.items()))
shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(rankings, rankings, shares, shares, st.integers(1, 300) | st.none())
def test_the_best_are_those_of_all_candidates(dense, sparse, dense_share, sparse_share, limit):
    """However far the arms are read."""
    arms = [
        (dict(arm), share) for arm, share in ((dense, dense_share), (sparse, sparse_share)) if share
    ]
    worth: dict[int, float] = dict.fromkeys((id_ for arm, _ in arms for id_ in arm), 0.0)
    for arm, share in arms:
        levels = list(arm.values())
        if len(arms) > 1:
            levels = (
                normalised(np.array(levels)) * (share / (dense_share + sparse_share))
            ).tolist()
        given_ = dict(zip(arm, levels, strict=True))
        for id_ in worth:
            worth[id_] += given_.get(id_, min([0.0, *levels]))
    words = dict(sparse)
    order = sorted(worth, key=lambda id_: (-worth[id_], -words.get(id_, 0.0), id_))
    fused = fuse(dense, sparse, ArmWeights(dense_share, sparse_share), limit)
    assert [(hit.id, hit.score) for hit in fused] == [(id_, worth[id_]) for id_ in order[:limit]]
    by_words = sorted(words, key=lambda id_: (-words[id_], id_))
    assert [hit.sparse_rank for hit in fused] == [
        by_words.index(hit.id) + 1 if hit.id in words else None for hit in fused
    ]
