"""``GET /v1/usage``: what the caller's tenant took of models."""

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from gateway import views
from gateway.bodies import Needs
from gateway.exchange import Call
from gateway.schemas import UsageReportView
from gateway.state import state_of
from gateway.store.usage import UsageCounts
from services.runtime.errors import InvalidArgument

router = APIRouter(tags=["Usage"])

DEFAULT_DAYS = 30
MAX_DAYS = 366


@router.get("/v1/usage", response_model=UsageReportView, summary="Usage by day and model")
async def usage(
    request: Request,
    call: Annotated[Call, Depends(Needs())],
    first: Annotated[
        str | None, Query(alias="from", description="First day, in UTC: `2026-11-01`.")
    ] = None,
    last: Annotated[
        str | None, Query(alias="to", description="Last day, in UTC; today when unset.")
    ] = None,
    model: Annotated[str | None, Query(description="One model only.")] = None,
) -> Response:
    """Requests and tokens of the token's tenant; any token of the tenant may ask. At most 366
    days; the last 30 when `from` is unset. A request counts under the model that answered it;
    `estimated` says for how many of them nobody counted the tokens exactly, as when they ended
    early. What other replicas counted within the last second may be missing."""
    begin, end = days(first, last)
    state = state_of(request.app)
    await state.usage.flush()
    found = await state.usage_store.read(call.tenant, begin, end, model)
    total = UsageCounts()
    rows = []
    for key, counts in found:
        total.add(counts)
        rows.append({"day": key.day.isoformat(), "model": key.model, **_view(counts)})
    return views.json_response(
        {"from": begin.isoformat(), "to": end.isoformat(), "usage": rows, "total": _view(total)}
    )


def days(first: str | None, last: str | None, today: date | None = None) -> tuple[date, date]:
    """The days asked for, both included.

    Raises:
        InvalidArgument: DATE_INVALID, RANGE_TOO_LONG.
    """
    end = _day(last, "to") or today or datetime.now(UTC).date()
    begin = _day(first, "from")
    if begin is None:
        begin = date.fromordinal(max(1, end.toordinal() - DEFAULT_DAYS + 1))
    if begin > end:
        raise InvalidArgument("DATE_INVALID", "from must not be later than to.", field="from")
    if end - begin >= timedelta(days=MAX_DAYS):
        raise InvalidArgument("RANGE_TOO_LONG", f"Ask for at most {MAX_DAYS} days.", field="from")
    return begin, end


def _day(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        if len(text) != len("2026-11-21"):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            "DATE_INVALID", f"{name} must be a day as 2026-11-21.", field=name
        ) from None


def _view(counts: UsageCounts) -> views.View:
    tokens = counts.prompt_tokens + counts.completion_tokens + counts.embedding_tokens
    return {**asdict(counts), "total_tokens": tokens}
