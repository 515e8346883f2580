"""What lives as long as the process, and every route can reach."""

from dataclasses import dataclass

from fastapi import FastAPI

from gateway.auth import Authenticator
from gateway.edge.rules import EdgeRules
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.settings import GatewaySettings
from gateway.store.audit import AuditStore
from gateway.store.sessions import SessionStore
from gateway.store.usage import UsageStore
from gateway.tenants import Tenants
from gateway.usage import UsageMeter


@dataclass(frozen=True, slots=True)
class State:
    """Built once, in `__main__` or by a test."""

    settings: GatewaySettings
    authenticator: Authenticator
    limiter: Limiter
    pipeline: Pipeline
    sessions: SessionStore
    usage: UsageMeter
    usage_store: UsageStore
    audit: AuditStore
    tenants: Tenants
    started_at: int
    """Seconds since the epoch."""
    edge: EdgeRules | None = None
    """What Kong would enforce before a route; None behind Kong."""


def state_of(app: FastAPI) -> State:
    """The state that `create_app` put there."""
    state: State = app.state.ragmesh
    return state
