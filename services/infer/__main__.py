"""The process: engines by name, wired to the servicer."""

from ragmesh.infer.v1 import infer_pb2, infer_pb2_grpc
from services.infer.adapters import PLANNED, REGISTRY
from services.infer.admission import Admission
from services.infer.core import Inference, Provider
from services.infer.servicer import InferServicer
from services.infer.settings import DEFAULT_OPENAI_URL, LEGACY_BACKENDS, InferSettings
from services.runtime.errors import FailedPrecondition, InvalidArgument, Unimplemented
from services.runtime.registry import resolve
from services.runtime.server import Service, run
from services.runtime.settings import load


def build(settings: InferSettings) -> Service:
    """Wire the service.

    Raises:
        InvalidArgument: UNKNOWN_NAME, for a provider that is not known.
        Unimplemented: NOT_IN_THIS_VERSION, for one that a later version brings.
        FailedPrecondition: MODEL_NAME_REQUIRED.
    """
    providers = {name: provider(name, settings) for name in settings.active_providers()}
    inference = Inference(
        providers,
        settings.model_aliases,
        settings.context_length,
        settings.engine_timeout,
    )
    servicer = InferServicer(inference)
    return Service(
        name=settings.service,
        register=lambda server: infer_pb2_grpc.add_InferServiceServicer_to_server(servicer, server),
        service_names=(infer_pb2.DESCRIPTOR.services_by_name["InferService"].full_name,),
        aclose=inference.aclose,
    )


def provider(name: str, settings: InferSettings) -> Provider:
    """One configured engine. Raises as `build` does."""
    what = "MODEL_BACKEND" if name == settings.model_backend else "model provider"
    if name in PLANNED:
        raise Unimplemented(
            "NOT_IN_THIS_VERSION",
            f"{what} {name!r}: a later version brings it; this one has: "
            f"{', '.join(sorted(REGISTRY))}.",
        )
    if name not in REGISTRY:
        known = sorted({*REGISTRY, *PLANNED, *LEGACY_BACKENDS})
        raise InvalidArgument(
            "UNKNOWN_NAME", f"{what} {name!r} is not known; known are: {', '.join(known)}."
        )
    if (
        name == settings.model_backend == "openai"
        and not settings.model_name
        and settings.server_of(name)[0] == DEFAULT_OPENAI_URL
    ):
        raise FailedPrecondition(
            "MODEL_NAME_REQUIRED", "MODEL_BACKEND=openai needs MODEL_NAME, such as gpt-4o-mini."
        )
    engine = resolve(REGISTRY, name, what).from_settings(name, settings)
    admission = Admission(settings.max_concurrency, settings.max_queue)
    return Provider(name, engine, admission, settings.model_of(name))


def main() -> None:
    run(build, load(InferSettings))


if __name__ == "__main__":
    main()
