"""Percentiles, spread and ratios of the bench harness."""

import math
from statistics import quantiles

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.statistics import percentile, ratio, spread, summarise

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), abs=1e-6)


def test_percentiles_are_those_of_the_standard_library():
    values = [float(one**2) for one in range(1, 38)]
    cuts = quantiles(values, n=100, method="inclusive")
    assert [percentile(values, one) for one in (50, 90, 99)] == pytest.approx(
        [cuts[49], cuts[89], cuts[98]]
    )


def test_a_percentile_of_nothing_is_no_number():
    assert math.isnan(percentile([], 50))


def test_a_summary_pools_the_starts_and_tells_how_far_they_differ():
    one = summarise([[3.0, 1.0, 2.0], [4.0, 4.0, 4.0], []])
    assert (one.count, one.least, one.most) == (6, 1.0, 4.0)
    assert one.p50 == 3.5
    assert one.mean == 3.0
    assert one.spread == pytest.approx((4 - 2) / 3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 0.0), ([3.0], 0.0), ([0.0, 0.0], 0.0), ([1.0, 2.0, 5.0], 2.0)],
)
def test_spread_is_the_range_over_the_median(values, expected):
    assert spread(values) == expected


def test_a_ratio_is_the_median_of_pairs_with_its_extremes():
    one = ratio([(10.0, 1.0), (30.0, 2.0), (4.0, 2.0)])
    assert (one.value, one.least, one.most) == (10.0, 2.0, 15.0)
    assert math.isnan(ratio([]).value)
    assert math.isnan(ratio([(1.0, 0.0)]).value)
