"""Calendar windows in UTC, as Kong's rate-limiting plugin cuts them."""

import math
from datetime import UTC, datetime
from enum import Enum


class Period(Enum):
    """A kind of window. The value is its length in seconds, by which Kong computes resets: a
    month counts 30 days and a year 365."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3600
    DAY = 86_400
    MONTH = 2_592_000
    YEAR = 31_536_000

    def start(self, now: float) -> int:
        """When the window that contains `now` began; both in seconds since the epoch."""
        if self.value <= Period.DAY.value:
            # The epoch began at midnight, and POSIX time knows no leap seconds.
            return int(now) - int(now) % self.value
        moment = datetime.fromtimestamp(now, UTC)
        month = moment.month if self is Period.MONTH else 1
        return int(datetime(moment.year, month, 1, tzinfo=UTC).timestamp())

    def end(self, now: float) -> int:
        """When the window that contains `now` ends."""
        if self.value <= Period.DAY.value:
            return self.start(now) + self.value
        # Into the next window for certain, and not past it.
        longest = 31 if self is Period.MONTH else 366
        return self.start(self.start(now) + longest * Period.DAY.value)

    def reset(self, now: float) -> int:
        """Whole seconds until the next window, at least 1: what Kong's headers say."""
        return max(1, self.value - (math.floor(now) - self.start(now)))

    def remaining(self, now: float) -> float:
        """Seconds until the next window."""
        return self.end(now) - now
