"""Figures out of a server's metrics page (Prometheus text format)."""

import re
from collections.abc import Iterable

_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)")


def total(page: str, names: Iterable[str]) -> float | None:
    """The sum of a metric over its labels, under the first of its names that the page has."""
    found: dict[str, float] = {}
    wanted = tuple(names)
    for line in page.splitlines():
        match = _LINE.match(line)
        if match and match[1] in wanted:
            try:
                found[match[1]] = found.get(match[1], 0.0) + float(match[2])
            except ValueError:
                continue
    return next((found[name] for name in wanted if name in found), None)
