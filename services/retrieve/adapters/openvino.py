"""Encoders in OpenVINO on a CPU, in bfloat16 where the processor computes in it.

It runs the same ONNX graphs as `services.retrieve.adapters.onnx`.
"""

from collections.abc import Sequence
from typing import Any

from services.retrieve.adapters import graphs
from services.retrieve.adapters.local import LocalModel, normalized
from services.retrieve.adapters.model_folder import ModelFolder, unreadable
from services.retrieve.adapters.models import computes_bfloat16
from services.retrieve.ports import Matrix
from services.runtime.errors import FailedPrecondition

_COPIED = 512 * 1024 * 1024
"""Bytes of a graph up to which questions have weights of their own."""


class Model(LocalModel):
    """A model in OpenVINO."""

    backend = "openvino"

    def open(self, folder: ModelFolder) -> str:
        try:
            import openvino  # noqa: PLC0415  a second, and not in every image
        except ImportError as error:
            raise FailedPrecondition(
                "PACKAGE_MISSING", "EMBEDDING_BACKEND=openvino needs the extra ragmesh[openvino]."
            ) from error
        if self._device != "cpu" or self._precision == "int8":
            raise FailedPrecondition(
                "PRECISION_UNSUPPORTED",
                "EMBEDDING_BACKEND=openvino computes on the CPU, in float32 or bfloat16.",
            )
        precision = self._precision
        if precision == "auto":
            precision = "bfloat16" if computes_bfloat16() else "float32"
        path = graphs.graph(folder, self._data)
        core = openvino.Core()
        try:
            read = core.read_model(str(path))
        except RuntimeError as error:
            raise unreadable(folder.name) from error

        def compiled(threads: int) -> Any:
            options = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
                # Other processes would be pinned to the same cores.
                "ENABLE_CPU_PINNING": False,
            }
            return core.compile_model(read, "CPU", options).create_infer_request()

        self._request = compiled(self._threads)
        weights = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
        self.overtakes = weights <= _COPIED
        self._urgent_request = compiled(1) if self.overtakes else self._request
        self._inputs = [one.get_any_name() for one in read.inputs]
        names = [one.get_any_name() for one in read.outputs]
        self._output, self._is_pooled = graphs.output(names, folder)
        self._pooling = folder.pooling
        return precision

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        return self._run(self._request, batch)

    def forward_urgent(self, batch: Sequence[Sequence[int]]) -> Matrix:
        return self._run(self._urgent_request, batch)

    def _run(self, request: Any, batch: Sequence[Sequence[int]]) -> Matrix:
        ids, mask = self.padded(batch)
        # A request is one pass at a time; the results are its own memory.
        request.infer(graphs.feed(self._inputs, ids, mask), share_inputs=True)
        made = request.get_output_tensor(self._output).data
        return normalized(made) if self._is_pooled else graphs.pooled(made, mask, self._pooling)
