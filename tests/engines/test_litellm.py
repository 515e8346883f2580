"""LiteLLM's library in this process, over a scripted server of OpenAI's API: the whole contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.infer.adapters.litellm import MEANINGS
from tests.contract.infer import test_engines as contract
from tests.contract.infer.rows import behind
from tests.contract.infer.servers.litellm import LiteLlmUpstream
from tests.contract.infer.test_engines import *  # noqa: F403 - all of it, with another row

litellm_exceptions = pytest.importorskip("litellm.exceptions")
ROW = {"litellm": behind(LiteLlmUpstream)}

# They go through all rows by themselves.
del test_every_row_is_tested, test_leaving_the_queue_asks_nothing_of_the_engine  # noqa: F821
del test_settings_bear_the_providers_name, test_names_are_kept_apart  # noqa: F821
# The library counts what the provider did not, and does not say so.
del test_usage_is_marked_when_it_is_estimated  # noqa: F821


@pytest.fixture  # type: ignore[no-redef]
async def mesh() -> AsyncIterator[contract.Harness]:
    async with contract.harness("litellm", rows=ROW) as made:
        yield made


def test_every_exception_of_the_library_has_a_meaning() -> None:
    kinds = [
        kind
        for kind in vars(litellm_exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == litellm_exceptions.__name__
    ]
    assert len(kinds) > 20
    without = [
        kind.__name__
        for kind in kinds
        if not any(parent.__name__ in MEANINGS for parent in kind.__mro__)
    ]
    assert without == []
