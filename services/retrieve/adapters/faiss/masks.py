"""Filters as arrays of flags, one a row, so that what they let through is exact."""

from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.retrieve.adapters.facets import facets_of
from services.retrieve.ports import Bounds

Flags = NDArray[np.bool_]


class Columns:
    """The values of rows that filters look at."""

    def __init__(self) -> None:
        self.strings: defaultdict[tuple[str, str], array[int]] = defaultdict(lambda: array("q"))
        self.number_rows: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self.numbers: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.present: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))

    def add(self, row: int, payload: Mapping[str, Any]) -> None:
        for path, value in facets_of(payload):
            self.present[path].append(row)
            if isinstance(value, str):
                self.strings[path, value].append(row)
            else:
                self.number_rows[path].append(row)
                self.numbers[path].append(value)


class MaskDialect:
    """Conditions as flags."""

    def __init__(self, columns: Columns, rows: Mapping[int, int], size: int) -> None:
        """Args:
        columns: of all rows.
        rows: by point.
        size: how many there are, dead ones included.
        """
        self._columns = columns
        self._rows = rows
        self._size = size

    def group(
        self, must: Sequence[Flags], must_not: Sequence[Flags], should: Sequence[Flags]
    ) -> Flags:
        found = np.ones(self._size, np.bool_)
        for one in must:
            found &= one
        for one in must_not:
            found &= ~one
        if should:
            found &= np.logical_or.reduce(list(should))
        return found

    def any_of(self, path: str, values: Sequence[str]) -> Flags:
        strings = self._columns.strings
        return self._flags(*(strings[path, one] for one in values if (path, one) in strings))

    def numbers(self, path: str, bounds: Bounds) -> Flags:
        if path not in self._columns.numbers:
            return self._flags()
        numbers = np.frombuffer(self._columns.numbers[path], np.float64)
        within = np.ones(len(numbers), np.bool_)
        if bounds.gt is not None:
            within &= numbers > bounds.gt
        if bounds.gte is not None:
            within &= numbers >= bounds.gte
        if bounds.lt is not None:
            within &= numbers < bounds.lt
        if bounds.lte is not None:
            within &= numbers <= bounds.lte
        found = self._flags()
        found[np.frombuffer(self._columns.number_rows[path], np.int64)[within]] = True
        return found

    def empty(self, path: str) -> Flags:
        present = self._columns.present
        return ~self._flags(present[path]) if path in present else ~self._flags()

    def points(self, points: frozenset[int]) -> Flags:
        found = self._flags()
        found[[self._rows[one] for one in points if one in self._rows]] = True
        return found

    def _flags(self, *rows: "array[int]") -> Flags:
        found = np.zeros(self._size, np.bool_)
        for one in rows:
            found[np.frombuffer(one, np.int64)] = True
        return found
