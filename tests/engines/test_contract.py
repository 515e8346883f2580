"""The engine contract, for engines that run in this process with a real model.

Each engine is loaded once. TEST_ENGINES names the rows, by comma; without it, those whose
package is installed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

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
    test_the_documentation_says_what_it_claims,
    test_the_known_answer_arrives_whole,
    test_what_is_claimed_works_and_the_rest_is_refused_by_name,
)
from tests.engines.checks import (  # noqa: F401 - collected here
    test_a_limit_cuts_between_characters,
    test_a_prompt_past_the_context_is_refused_with_the_numbers,
    test_leaving_ends_the_work_and_the_next_caller_is_served,
    test_tokens_are_counted_exactly,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKAGES = {"llamacpp": "llama_cpp", "transformers": "transformers", "vllm-local": "vllm"}
NAMED = os.environ.get("TEST_ENGINES", "")  # noqa: TID251 - the developer's, not the mesh's
CHOSEN = (
    NAMED.split(",")
    if NAMED
    else [name for name in sorted(REAL) if importlib.util.find_spec(PACKAGES[name])]
)


@pytest_asyncio.fixture(params=CHOSEN, scope="module", loop_scope="module")
async def mesh(request) -> AsyncIterator[Harness]:
    async with harness(request.param, rows=REAL) as made:
        await made.engine.ready()
        yield made
