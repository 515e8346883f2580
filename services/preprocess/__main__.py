"""Starts preprocess: ``python -m services.preprocess``."""

from ragmesh.preprocess.v1 import preprocess_pb2, preprocess_pb2_grpc
from services.preprocess.adapters.processes import WorkerProcesses
from services.preprocess.core import Preprocessor
from services.preprocess.formats import SUPPORTED
from services.preprocess.servicer import PreprocessServicer
from services.preprocess.settings import PreprocessSettings
from services.preprocess.worker import WorkerLimits
from services.runtime.server import Service, run
from services.runtime.settings import load


def build(settings: PreprocessSettings) -> Service:
    """Wire the service. The workers start in `ready`."""
    workers = WorkerProcesses(
        workers=settings.parse_workers,
        limits=WorkerLimits(settings.parse_memory_bytes),
        seconds=settings.parse_seconds,
        documents_per_worker=settings.parse_documents_per_worker,
    )
    servicer = PreprocessServicer(
        Preprocessor(workers, settings),
        {"parser": "pdfium, kreuzberg, selectolax, markdown-it", "formats": SUPPORTED},
    )
    return Service(
        name=settings.service,
        register=lambda server: preprocess_pb2_grpc.add_PreprocessServiceServicer_to_server(
            servicer, server
        ),
        service_names=(preprocess_pb2.DESCRIPTOR.services_by_name["PreprocessService"].full_name,),
        ready=workers.ready,
        aclose=workers.aclose,
    )


if __name__ == "__main__":
    run(build, load(PreprocessSettings))
