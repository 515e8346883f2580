"""docs/settings.md says what the settings classes say."""

from __future__ import annotations

from typing import Any

from docs.build import SECTIONS, TARGET, reference
from services.runtime.settings import variables_of


def test_reference_is_in_sync() -> None:
    assert TARGET.read_text(encoding="utf-8") == reference(), (
        "docs/settings.md is old: run `python docs/build.py`"
    )


def test_every_setting_has_a_meaning() -> None:
    silent = {
        f"{cls.__name__}.{name}"
        for _, cls in SECTIONS
        for name, field in cls.model_fields.items()
        if not field.description
    }
    assert silent == set()


def test_a_variable_that_several_processes_read_has_one_default() -> None:
    defaults: dict[str, set[Any]] = {}
    for _, cls in SECTIONS:
        for name, field in cls.model_fields.items():
            for variable in variables_of(cls, name):
                defaults.setdefault(variable, set()).add(repr(field.default))
    assert {name: found for name, found in defaults.items() if len(found) > 1} == {}
