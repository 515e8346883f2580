"""Payloads and filters as Edge wants them.

Edge matches numbers and strings by value but takes a boolean for the number 1, and its paths
cannot name every key that JSON can. So metadata is laid out for filtering: every scalar under a
key made of its type and the hash of its path, lists as lists.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import qdrant_edge as edge

from services.retrieve.access import EVERYTHING
from services.retrieve.filters import METADATA_PREFIX, utc_bounds
from services.retrieve.ports import Chunk, Condition, Document, Filter, Scalar

_METADATA = "metadata"
ACCESS = "access"


def payload(document: Document, version: int, chunk: Chunk) -> dict[str, Any]:
    """A chunk's payload: what filters look at, and its texts."""
    values: dict[str, Any] = {
        "document_id": document.id,
        "version": version,
        "text": chunk.text,
        "language": chunk.language,
        "source": document.source,
        "title": document.title,
        "heading": chunk.heading,
        _METADATA: _facets(document.metadata_json),
    }
    if chunk.normalized_text != chunk.text:
        values["normalized_text"] = chunk.normalized_text
    if chunk.page is not None:
        values["page"] = chunk.page
    if document.access:
        values[ACCESS] = list(document.access)
    return values


def to_edge(
    filter_: Filter | None,
    *,
    languages: Sequence[str] | None,
    hidden: set[int],
    readable: Sequence[str] | None,
) -> Any:
    """An Edge filter, or None when everything may be found.

    Args:
        filter_: the caller's, already checked.
        languages: the only languages to find; None for all.
        hidden: points that are not current and must not be found.
        readable: the caller's attributes, one of which an access list must name; None where the
            caller may read all that is there.
    """
    must: list[Any] = []
    if filter_ is not None:
        must.append(_group(filter_))
    if languages is not None:
        match = edge.MatchAny(list(languages))
        must.append(edge.FieldCondition("language", match=match))
    if readable is not None and EVERYTHING not in readable:
        listed = edge.FieldCondition(ACCESS, match=edge.MatchAny(list(readable)))
        free = edge.IsEmptyCondition(ACCESS)
        must.append(edge.Filter(should=[free, listed] if readable else [free]))
    must_not: list[Any] = [edge.HasIdCondition(set(hidden))] if hidden else []
    return edge.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def _group(filter_: Filter) -> Any:
    return edge.Filter(
        must=[_condition(one) for one in filter_.must] or None,
        must_not=[_condition(one) for one in filter_.must_not] or None,
        should=[_condition(one) for one in filter_.should] or None,
    )


def _condition(condition: Condition) -> Any:
    if condition.group is not None:
        return _group(condition.group)
    name = condition.field
    if condition.equals is not None:
        return _equals(name, condition.equals)
    if condition.any_of is not None:
        return edge.Filter(should=[_equals(name, value) for value in condition.any_of])
    if condition.range is not None:
        r = condition.range
        bounds = edge.RangeFloat(gt=r.gt, gte=r.gte, lt=r.lt, lte=r.lte)
        return edge.FieldCondition(_path(name, "n"), range=bounds)
    if condition.datetime_range is None:
        raise ValueError("an unchecked filter reached the engine")
    times = utc_bounds(condition.datetime_range)
    return edge.FieldCondition(
        _path(name, "s"),
        range=edge.RangeDateTime(gt=times.gt, gte=times.gte, lt=times.lt, lte=times.lte),
    )


def _equals(name: str, value: Scalar) -> Any:
    if isinstance(value, bool):
        return edge.FieldCondition(_path(name, "b"), match=edge.MatchValue(_boolean(value)))
    if isinstance(value, str):
        return edge.FieldCondition(_path(name, "s"), match=edge.MatchValue(value))
    bounds = edge.RangeFloat(gte=float(value), lte=float(value))  # 3 equals 3.0
    return edge.FieldCondition(_path(name, "n"), range=bounds)


def _path(name: str, kind: str) -> str:
    path = name.removeprefix(METADATA_PREFIX)
    return name if path == name else f"{_METADATA}.{_facet(path, kind)}"


def _facet(path: str, kind: str) -> str:
    """The key of a metadata path's values of one kind: s(tring), n(umber) or b(oolean)."""
    return kind + hashlib.blake2b(path.encode(), digest_size=12).hexdigest()


def _facets(metadata_json: str) -> dict[str, list[str | float]]:
    facets: dict[str, list[str | float]] = {}
    for path, value in _scalars(json.loads(metadata_json or "{}"), ""):
        if isinstance(value, bool):
            facets.setdefault(_facet(path, "b"), []).append(_boolean(value))
        elif isinstance(value, str):
            facets.setdefault(_facet(path, "s"), []).append(value)
        else:
            facets.setdefault(_facet(path, "n"), []).append(value)
    return facets


def _scalars(value: Any, path: str) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _scalars(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _scalars(inner, path)
    elif value is not None:
        yield path, value


def _boolean(value: bool) -> str:
    return "true" if value else "false"
