"""Instructions for models, one file a language."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files

LANGUAGES = ("en", "ja")


def _load(language: str) -> Mapping[str, Mapping[str, str]]:
    text = files(__name__).joinpath(f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


TEMPLATES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    language: _load(language) for language in LANGUAGES
}
"""Language -> task -> texts, with a `version`."""
