"""The contract of a `Store`, over Edge with collections that are merged all the time."""

import pytest

from services.retrieve.adapters.edge.client import EdgeStore
from tests.contract.retrieve.test_copies import *  # noqa: F403
from tests.contract.retrieve.test_learning import *  # noqa: F403
from tests.contract.retrieve.test_store import *  # noqa: F403


@pytest.fixture  # type: ignore[no-redef]
def open_store(tmp_path):
    """Opens the store with so low a bound that nearly every publication makes a run."""
    return lambda **options: EdgeStore("", tmp_path, merge_points=4, **options)
