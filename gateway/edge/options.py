"""What an operator changes of the source's plugins: kept beside the rendered file, merged into it.

<data>/edge.yml     plugins by name, with the fields of their configuration that differ
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.credentials import read_document
from gateway.files import PUBLIC, write_atomically
from services.runtime.errors import InvalidArgument

Options = dict[str, dict[str, Any]]


def read_options(path: Path) -> Options:
    """By plugin; empty when nothing was changed.

    Raises:
        FailedPrecondition: CREDENTIALS_UNREADABLE.
    """
    if not path.exists():
        return {}
    return dict(read_document(path).get("plugins") or {})


def write_options(path: Path, options: Options) -> None:
    text = yaml.safe_dump({"plugins": options}, sort_keys=True, allow_unicode=True)
    write_atomically(path, text, PUBLIC)


def merged(document: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The document, its global plugins changed: a plugin with options is switched on.

    Raises:
        InvalidArgument: PLUGIN_UNKNOWN: the source has no such plugin for all routes.
    """
    plugins = [dict(plugin) for plugin in document.get("plugins") or ()]
    by_name = {plugin["name"]: plugin for plugin in plugins}
    for name, changes in options.items():
        if name not in by_name or name == "post-function":
            known = ", ".join(sorted(by_name.keys() - {"post-function"}))
            raise InvalidArgument(
                "PLUGIN_UNKNOWN", f"'{name}' is no plugin of the file; known are {known}"
            )
        plugin = by_name[name]
        # A list that opens the way must be the operator's own: the source's is an example.
        base = plugin.get("config") or {}
        if plugin.pop("enabled", True) is False:
            base = {}
        config = base | changes
        plugin["config"] = {key: value for key, value in config.items() if value is not None}
    return {**document, "plugins": plugins}
