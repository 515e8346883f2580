"""The process: the servicer on the chassis."""

from ragmesh.postprocess.v1 import postprocess_pb2, postprocess_pb2_grpc
from services.postprocess.servicer import PostprocessServicer
from services.postprocess.settings import PostprocessSettings
from services.runtime.server import Service, run
from services.runtime.settings import load


def build(settings: PostprocessSettings) -> Service:
    """Wire the service; it has nothing to wait for and nothing to let go of."""
    servicer = PostprocessServicer(settings)
    return Service(
        name=settings.service,
        register=lambda server: postprocess_pb2_grpc.add_PostprocessServiceServicer_to_server(
            servicer, server
        ),
        service_names=(
            postprocess_pb2.DESCRIPTOR.services_by_name["PostprocessService"].full_name,
        ),
    )


def main() -> None:
    run(build, load(PostprocessSettings))


if __name__ == "__main__":
    main()
