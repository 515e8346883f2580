"""What an encoder is known to represent, in collections of it and of others."""

from dataclasses import replace

import pytest

from services.retrieve.adapters.catalog import Row, Totals, describe
from services.retrieve.ports import EncoderFacts
from tests.contract.retrieve.stores import collection
from tests.unit.retrieve.fakes import WordModel

RUNNING = WordModel().load()
"""words@1, of English."""


@pytest.mark.parametrize(
    ("encoder", "stored", "running", "expected"),
    [
        ("words@1", ("ja",), ("en",), ("en",)),  # what runs may have been corrected by a setting
        ("words@1", ("ja",), (), ("ja",)),  # or lost its model card
        ("words@1", (), ("en",), ("en",)),
        ("words@1", (), (), ()),
        ("words@2", ("ja",), ("en",), ("ja",)),
        ("words@2", (), ("en",), ()),  # of another, what runs says nothing
    ],
)
def test_stored_facts_stand_in(
    encoder: str, stored: tuple[str, ...], running: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    new = replace(collection(), encoder=encoder, encoder_languages=stored)
    of = describe(Row(1, "f", new, 1.0, ""), Totals(), 0)
    facts: EncoderFacts = replace(RUNNING, languages=running)
    made = facts.as_in(of)
    assert made.languages == expected
    assert made.id == RUNNING.id
    assert made.covers("ja") == (not expected or "ja" in expected)
