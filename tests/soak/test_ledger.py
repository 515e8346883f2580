"""The ledger of the soak sees what it is there for."""

import pytest

from tests.soak.ledger import Ledger, Seen, marks, text_of


def seen(document, revision, parts, only=None):
    return [Seen(document, revision, part, parts) for part in only or range(parts)]


@pytest.fixture
def ledger():
    """Document d: revision 1 of 3 parts acknowledged, revision 2 of 2 parts sent."""
    one = Ledger()
    one.acknowledge("d", one.attempt("d", 3))
    one.attempt("d", 2)
    return one


def counts(ledger):
    return ledger.lost, ledger.torn, ledger.doubled


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (seen("d", 1, 3), (0, 0, 0)),
        (seen("d", 2, 2), (0, 0, 0)),
        ([], (1, 0, 0)),
        (seen("d", 1, 3, [0, 2]), (0, 1, 0)),
        (seen("d", 2, 2, [1]), (0, 1, 0)),
        (seen("d", 1, 3) + seen("d", 2, 2), (0, 0, 1)),
        (seen("d", 1, 3, [0, 1, 1, 2]), (0, 0, 1)),
        (seen("d", 7, 2), (1, 0, 0)),
    ],
)
def test_one_document(ledger, found, expected):
    ledger.judge({"search": found})
    assert counts(ledger) == expected
    assert len(ledger.problems) == sum(expected)


def test_what_was_replaced_does_not_come_back(ledger):
    ledger.judge({"search": seen("d", 2, 2)})
    ledger.judge({"search": seen("d", 1, 3)})
    assert counts(ledger) == (1, 0, 0)


def test_every_view_is_judged(ledger):
    ledger.judge({"search": seen("d", 1, 3), "list": []})
    assert counts(ledger) == (1, 0, 0)
    assert "by list" in ledger.problems[0]


def test_a_deletion_may_have_happened_once_it_was_sent(ledger):
    number = ledger.attempt("d", 0)
    ledger.judge({"search": seen("d", 2, 2)})
    ledger.judge({"search": []})
    assert counts(ledger) == (0, 0, 0)
    ledger.acknowledge("d", number)
    ledger.judge({"search": seen("d", 2, 2)})
    assert counts(ledger) == (1, 0, 0)


def test_a_document_that_nobody_sent_is_noticed():
    ledger = Ledger()
    ledger.judge({"search": seen("x", 1, 1)})
    assert counts(ledger) == (1, 0, 0)


def test_marks_are_found_in_what_was_written():
    assert marks([text_of("d3", 12, 2)]) == seen("d3", 12, 2)
