import pytest

from services.retrieve.filters import MAX_DEPTH, check_filter, instant, instants
from services.retrieve.ports import Bounds, Condition, Filter, TimeBounds
from services.runtime.errors import InvalidArgument


@pytest.mark.parametrize(
    "condition",
    [
        Condition("document_id", equals="a"),
        Condition("metadata.year", range=Bounds(gte=2020)),
        Condition("metadata.発行 年", any_of=("a", 1.0, True)),
        Condition("metadata.when", datetime_range=TimeBounds(gt="2026-11-21")),
        Condition("", group=Filter(should=(Condition("page", equals=1.0),))),
    ],
)
def test_well_formed_filters_pass(condition):
    check_filter(Filter(must=(condition,)))


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        (Condition("colour", equals="a"), "filter.must_not[0].field"),
        (Condition("metadata.", equals="a"), "filter.must_not[0].field"),
        (Condition("metadata.a..b", equals="a"), "filter.must_not[0].field"),
        (Condition("page"), "filter.must_not[0]"),
        (Condition("page", range=Bounds()), "filter.must_not[0]"),
        (Condition("page", any_of=()), "filter.must_not[0]"),
        (
            Condition("metadata.d", datetime_range=TimeBounds(lt="soon")),
            "filter.must_not[0].datetime_range.lt",
        ),
        (
            Condition("title", datetime_range=TimeBounds(lt="2026-11-21")),
            "filter.must_not[0].field",
        ),
        (
            Condition("", group=Filter(must=(Condition("x", equals=1.0),))),
            "filter.must_not[0].group.must[0].field",
        ),
    ],
)
def test_the_place_of_a_fault_is_named(condition, where):
    with pytest.raises(InvalidArgument) as caught:
        check_filter(Filter(must_not=(condition,)))
    assert (caught.value.reason, caught.value.field) == ("FILTER_INVALID", where)


def test_groups_nest_to_a_limit():
    condition = Condition("page", equals=1.0)
    for _ in range(MAX_DEPTH):
        condition = Condition("", group=Filter(must=(condition,)))
    with pytest.raises(InvalidArgument, match="deep"):
        check_filter(Filter(must=(condition,)))


def test_many_conditions_are_refused():
    with pytest.raises(InvalidArgument, match="at most"):
        check_filter(Filter(must=(Condition("page", equals=1.0),) * 300))


def test_times_become_seconds():
    bounds = instants(TimeBounds(gte="2026-11-21T09:00:00+09:00", lt="2026-11-22"))
    assert (bounds.gte, bounds.lt) == (1795219200.0, 1795305600.0)


@pytest.mark.parametrize(
    "text",
    ["", "20261121", "2026-W47-6", "2026-13-01", "2026-11-21T25:00:00Z", "2026-11-21T09", "9999"],
)
def test_what_is_no_rfc_3339_time_is_no_time(text):
    assert instant(text) is None
