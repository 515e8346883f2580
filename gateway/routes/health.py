"""``/health``: what works and what does not. Needs no token."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway import views
from gateway.pipeline import ServiceHealth
from gateway.state import state_of
from services.runtime.version import VERSION

router = APIRouter(tags=["Health"])


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Response:
    """200 while the gateway's event loop answers."""
    return views.json_response({"status": "ok"})


@router.get("/health/ready", summary="Can requests be served?")
async def ready(request: Request) -> Response:
    """200 when every service is SERVING, 503 naming those that are not."""
    found = await state_of(request.app).pipeline.health()
    missing = [name for name, service in found.items() if not service.available]
    status = "unavailable" if missing else "ok"
    return views.json_response({"status": status, "missing": missing}, 503 if missing else 200)


@router.get("/health", summary="Which services and back-ends are there?")
async def health(request: Request) -> Response:
    """Each service with its back-ends (`model_backend`, `embedding_backend`, `vector_backend`),
    whether it is available, and its version."""
    found = await state_of(request.app).pipeline.health()
    services = {name: _view(service) for name, service in found.items()}
    backends: dict[str, str] = {}
    for service in found.values():
        backends |= service.backends
    ok = all(service.available for service in found.values())
    return views.json_response(
        {
            **{
                role: backends.get(role)
                for role in ("model_backend", "embedding_backend", "vector_backend")
            },
            "status": "ok" if ok else "degraded",
            "version": VERSION,
            "services": services,
        }
    )


def _view(service: ServiceHealth) -> views.View:
    return {"available": service.available, "version": service.version, **service.backends}
