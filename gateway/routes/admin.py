"""``/v1/admin/audit`` and ``/v1/admin/tenants``: for administrators.

They ask for the scope `models:admin`, which every administration of the mesh asks for.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from gateway import views
from gateway.actions import ACTIONS
from gateway.bodies import Needs
from gateway.exchange import Call
from gateway.paging import Page, page
from gateway.schemas import AuditView, TenantDeletedView, TenantView
from gateway.state import state_of
from gateway.store.audit import Entry, moment
from services.runtime.errors import InvalidArgument

router = APIRouter(tags=["Administration"])

Admin = Annotated[Call, Depends(Needs("models:admin"))]
Consumer = Annotated[
    str | None, Query(description="The tenant's consumer; the token's own when unset.")
]
MAX_TIME = 40


@router.get("/v1/admin/audit", response_model=AuditView, summary="Read the audit log")
async def audit(
    request: Request,
    call: Admin,
    *,
    page: Annotated[Page, Depends(page)],
    action: Annotated[
        str | None, Query(description=f"One of {', '.join(f'`{each}`' for each in ACTIONS)}.")
    ] = None,
    first: Annotated[
        str | None, Query(alias="from", description="Not before this time, RFC 3339.")
    ] = None,
    last: Annotated[
        str | None, Query(alias="to", description="Not after this time, RFC 3339.")
    ] = None,
) -> Response:
    """Who did what, newest first. A token sees the entries of its tenant; with a consumer that is
    trusted with every tenant, those of the consumer; with the operator's consumer, all."""
    if action is not None and action not in ACTIONS:
        raise InvalidArgument("ACTION_UNKNOWN", f"There is no action '{action}'.", field="action")
    principal = call.principal
    found = await state_of(request.app).audit.read(
        tenant=None if principal.operator or principal.any_tenant else call.tenant,
        consumer=None if principal.operator else principal.consumer,
        action=action,
        first=time_of(first, "from"),
        last=time_of(last, "to"),
        before=_number(page.after),
        limit=page.limit + 1,
    )
    shown = found[: page.limit]
    return views.json_response(
        {
            "entries": [_view(entry) for entry in shown],
            "next": str(shown[-1].number) if len(found) > page.limit else None,
        }
    )


@router.get("/v1/admin/tenants/{tenant:path}", response_model=TenantView, summary="Count a tenant")
async def get_tenant(
    request: Request, tenant: str, call: Admin, consumer: Consumer = None
) -> Response:
    """What a tenant has in every store. The token's consumer must be the operator's, or trusted
    with every tenant and the tenant's own."""
    owner = consumer or call.principal.consumer
    found = await state_of(request.app).tenants.contents(call, owner, tenant)
    return views.json_response({"tenant": tenant, "consumer": owner, "contents": asdict(found)})


@router.delete(
    "/v1/admin/tenants/{tenant:path}", response_model=TenantDeletedView, summary="Delete a tenant"
)
async def delete_tenant(
    request: Request, tenant: str, call: Admin, consumer: Consumer = None
) -> Response:
    """Deletes everything that a tenant has: collections with their vectors and files, sessions and
    usage. `left` is counted afterwards in every store; `complete` says that it is zero everywhere.
    Revoke the tenant's keys first: a valid token may write again."""
    owner = consumer or call.principal.consumer
    done = await state_of(request.app).tenants.delete(call, owner, tenant)
    return views.json_response(
        {
            "tenant": tenant,
            "consumer": owner,
            "removed": asdict(done.removed),
            "left": asdict(done.left),
            "complete": done.left.is_empty,
        }
    )


def time_of(text: str | None, name: str) -> str | None:
    """A time as the log writes it; one without a zone is taken for UTC.

    Raises:
        InvalidArgument: DATE_INVALID.
    """
    if text is None:
        return None
    try:
        # A plus sign in a query is a space.
        at = datetime.fromisoformat(text[:MAX_TIME].replace(" ", "+"))
        return moment(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise InvalidArgument(
            "DATE_INVALID", f"{name} must be a time as 2026-11-21T09:00:00Z.", field=name
        ) from None


def _number(after: str) -> int | None:
    if not after:
        return None
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise InvalidArgument("AFTER_INVALID", "after is not a page's `next`.", field="after")
    return int(after)


def _view(entry: Entry) -> views.View:
    event = entry.event
    return {
        "number": entry.number,
        "at": event.at,
        "consumer": event.consumer,
        "tenant": event.tenant_name or None,
        "subject": event.subject,
        "token_id": event.token_id or None,
        "request_id": event.request_id or None,
        "action": event.action,
        "target": event.target,
        "outcome": event.outcome,
        "previous": entry.previous,
        "hash": entry.hash,
    }
