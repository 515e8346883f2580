"""Adapters by name: only the chosen one is imported."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from services.runtime.errors import FailedPrecondition, InvalidArgument


def resolve(
    registry: Mapping[str, str],
    name: str,
    what: str,
) -> Any:
    """The object behind a name.

    Args:
        registry: name -> dotted path, such as ``services.infer.adapters.openai:OpenAIEngine``.
        name: the name that was asked for.
        what: what the names are, for the message, such as ``MODEL_BACKEND``.

    Raises:
        InvalidArgument: UNKNOWN_NAME, listing the known names.
        FailedPrecondition: PACKAGE_MISSING, when the adapter's own dependency is not installed.
    """
    if name in registry:
        try:
            return pkgutil.resolve_name(registry[name])
        except ModuleNotFoundError as error:
            raise FailedPrecondition(
                "PACKAGE_MISSING",
                f"{what} {name!r} needs the package {error.name!r}, which is not installed.",
            ) from error
    known = ", ".join(sorted(registry))
    raise InvalidArgument("UNKNOWN_NAME", f"{what} {name!r} is not known; known are: {known}.")


def package(name: str, what: str) -> Any:
    """A package that an adapter needs and its module does not import, because the module is read
    where the package is not installed.

    Args:
        name: the module, such as ``llama_cpp``.
        what: who needs it, for the message, such as ``model provider 'llamacpp'``.

    Raises:
        FailedPrecondition: PACKAGE_MISSING.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            "PACKAGE_MISSING", f"{what} needs the package {error.name!r}, which is not installed."
        ) from error
