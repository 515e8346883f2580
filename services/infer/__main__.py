"""The process: engines by name, wired to the servicer."""

from collections.abc import Mapping

from ragmesh.infer.v1 import infer_pb2, infer_pb2_grpc
from services.infer.adapters import REGISTRY
from services.infer.core import Inference
from services.infer.observing import Observer
from services.infer.providers import build_providers
from services.infer.servicer import InferServicer
from services.infer.settings import InferSettings
from services.runtime.server import Service, run
from services.runtime.settings import load


def build(settings: InferSettings, registry: Mapping[str, str] = REGISTRY) -> Service:
    """Wire the service. Raises as `build_providers` does.

    Args:
        registry: provider -> engine, for trying one out that is not in the mesh's own.
    """
    providers = build_providers(settings, registry)
    inference = Inference(providers, settings.model_aliases, settings.engine_timeout)
    observer = Observer(providers, settings.engine_metrics_interval)

    async def aclose() -> None:
        await observer.aclose()
        await inference.aclose()

    servicer = InferServicer(inference)
    return Service(
        name=settings.service,
        register=lambda server: infer_pb2_grpc.add_InferServiceServicer_to_server(servicer, server),
        service_names=(infer_pb2.DESCRIPTOR.services_by_name["InferService"].full_name,),
        ready=observer.start,
        aclose=aclose,
    )


def main() -> None:
    run(build, load(InferSettings))


if __name__ == "__main__":
    main()
