"""Pages of lists: `limit` and `after` in, `next` out."""

from typing import NamedTuple

from fastapi import Query

from services.runtime.errors import InvalidArgument

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_TOKEN_CHARACTERS = 4096


class Page(NamedTuple):
    """Which page of a list."""

    limit: int
    after: str


async def page(
    limit: str | None = Query(None, description="How many, from 1 to 1,000; 100 when unset."),
    after: str = Query("", description="The `next` of the page before."),
) -> Page:
    """Raises:
    InvalidArgument: LIMIT_INVALID, AFTER_INVALID.
    """
    if limit is None:
        count = DEFAULT_LIMIT
    else:
        # str.isdigit knows digits that int() does not; and a long number is no limit either.
        count = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 6 else 0
        if not 1 <= count <= MAX_LIMIT:
            raise InvalidArgument(
                "LIMIT_INVALID", f"limit must be a number from 1 to {MAX_LIMIT}.", field="limit"
            )
    if len(after) > MAX_TOKEN_CHARACTERS or "\0" in after:
        raise InvalidArgument("AFTER_INVALID", "after is not a page's `next`.", field="after")
    return Page(count, after)
