"""Adapters by name."""

import pathlib

import pytest

from services.runtime.errors import FailedPrecondition, InvalidArgument
from services.runtime.registry import resolve

REGISTRY = {"path": "pathlib:Path", "absent": "no_such_package.engine:Engine"}


def test_a_known_name_is_resolved() -> None:
    assert resolve(REGISTRY, "path", "MODEL_BACKEND") is pathlib.Path


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve(REGISTRY, "pth", "MODEL_BACKEND")
    assert caught.value.message == "MODEL_BACKEND 'pth' is not known; known are: absent, path."


def test_a_missing_package_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="no_such_package"):
        resolve(REGISTRY, "absent", "MODEL_BACKEND")
