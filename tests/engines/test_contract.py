"""The engine contract, for engines that run in this process with a real model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.infer.rows import REAL
from tests.contract.infer.test_engines import (  # noqa: F401 - collected here with other rows
    Harness,
    harness,
    test_a_tool_is_called_with_its_arguments,
    test_an_unknown_model_is_not_found,
    test_as_many_stops_as_it_claims,
    test_claims_and_protocols_agree,
    test_events_come_in_order_and_no_answer_is_empty,
    test_logprobs_cover_the_text,
    test_many_at_once_do_not_mix,
    test_models_are_listed_and_answer_by_their_own_name,
    test_the_known_answer_arrives_whole,
    test_what_is_claimed_works_and_the_rest_is_refused_by_name,
)


@pytest.fixture(params=sorted(REAL))
async def mesh(request) -> AsyncIterator[Harness]:
    async with harness(request.param, rows=REAL) as made:
        yield made
