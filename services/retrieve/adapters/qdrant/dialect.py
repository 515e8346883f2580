"""Conditions of Qdrant, and the points that belong to a collection."""

from collections.abc import Iterable, Sequence
from typing import Any

from qdrant_client import models

from services.retrieve.adapters.conditions import translate
from services.retrieve.adapters.points import Allowed
from services.retrieve.ports import Bounds

TENANT, COLLECTION, VERSION = "tenant", "collection", "version"
"""Fields of every chunk's payload beside those of `points.payload`."""


class QdrantDialect:
    """A `conditions.Dialect`."""

    def group(
        self, must: Sequence[Any], must_not: Sequence[Any], should: Sequence[Any]
    ) -> models.Filter:
        return models.Filter(
            must=list(must) or None, must_not=list(must_not) or None, should=list(should) or None
        )

    def any_of(self, path: str, values: Sequence[str]) -> models.FieldCondition:
        return one_of(path, values)

    def numbers(self, path: str, bounds: Bounds) -> models.FieldCondition:
        b = bounds
        return models.FieldCondition(
            key=path, range=models.Range(gt=b.gt, gte=b.gte, lt=b.lt, lte=b.lte)
        )

    def empty(self, path: str) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))

    def points(self, points: frozenset[int]) -> models.HasIdCondition:
        raise NotImplementedError("versions are hidden here, not points")


def equals(key: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def one_of(key: str, values: Iterable[str]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))


def below(key: str, value: float) -> models.FieldCondition:
    return models.FieldCondition(key=key, range=models.Range(lt=value))


def has_id(points: Iterable[str]) -> models.HasIdCondition:
    return models.HasIdCondition(has_id=list(points))


def scope(folder: str) -> list[Any]:
    """The conditions that all points of a collection fulfil, and no others."""
    return [equals(TENANT, tenant_part(folder)), equals(COLLECTION, folder)]


def tenant_part(folder: str) -> str:
    return folder.partition("/")[0]


def allowed_filter(folder: str, allowed: Allowed, hidden: Iterable[str]) -> models.Filter:
    """A search's filter.

    Args:
        folder: the collection's.
        allowed: what may be found; `Allowed.hidden` is not looked at.
        hidden: versions that must not be found.
    """
    asked = translate(
        QdrantDialect(), allowed.filter, languages=allowed.languages, readable=allowed.readable
    )
    gone = list(hidden)
    return models.Filter(
        must=[*scope(folder), *([asked] if asked is not None else [])],
        must_not=[one_of(VERSION, gone)] if gone else None,
    )
