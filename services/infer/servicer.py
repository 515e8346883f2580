"""Serves InferService: protobuf to core and back, counted."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ragmesh.infer.v1 import infer_pb2 as pb
from ragmesh.infer.v1 import infer_pb2_grpc
from services.infer import metrics
from services.infer.core import Inference, Route
from services.infer.ports import Delta, Event, Usage
from services.infer.wire import model_from, request_from, response_from
from services.runtime.context import current_tenant
from services.runtime.deadlines import time_remaining
from services.runtime.errors import RagmeshError
from services.runtime.version import VERSION


class InferServicer(infer_pb2_grpc.InferServiceServicer):
    """A thin face on `Inference`."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def Generate(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        asked = request_from(request, time_remaining(context), current_tenant())
        route = await self._inference.route(asked.model)
        async with aclosing(self._inference.generate(route, asked)) as events:
            meter = Meter(route)
            try:
                async for event in events:
                    meter.saw(event)
                    yield response_from(event)
                meter.outcome = "ok"
            except RagmeshError as error:
                meter.outcome = error.reason.lower()
                raise
            finally:
                meter.close()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        models = await self._inference.list_models()
        return pb.ListModelsResponse(models=[model_from(model) for model in models])

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Any
    ) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(
            version=VERSION,
            backends={"model_backend": self._inference.default.name},
            available=await self._inference.available(),
        )


class Meter:
    """Counts one generation; without an outcome it was aborted."""

    def __init__(self, route: Route) -> None:
        self._provider = route.provider.name
        self._start = time.perf_counter()
        self._spoke = False
        self.outcome = ""
        metrics.IN_FLIGHT.labels(self._provider).inc()

    def saw(self, event: Event) -> None:
        if isinstance(event, Delta) and not self._spoke:
            self._spoke = True
            elapsed = time.perf_counter() - self._start
            metrics.FIRST_DELTA_SECONDS.labels(self._provider).observe(elapsed)
        elif isinstance(event, Usage):
            metrics.TOKENS.labels(self._provider, "prompt").inc(event.prompt_tokens)
            metrics.TOKENS.labels(self._provider, "completion").inc(event.completion_tokens)

    def close(self) -> None:
        metrics.IN_FLIGHT.labels(self._provider).dec()
        if self.outcome in ("", "engine_timeout"):
            metrics.ABORTED.labels(self._provider).inc()
        metrics.REQUESTS.labels(self._provider, self.outcome or "aborted").inc()
