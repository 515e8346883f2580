"""Encoders in ONNX Runtime, in float32 or int8, with no torch in the process."""

from collections.abc import Sequence
from typing import Any

from services.retrieve.adapters import graphs
from services.retrieve.adapters.local import LocalModel, normalized
from services.retrieve.adapters.model_folder import ModelFolder
from services.retrieve.adapters.onnx_models import open_session
from services.retrieve.ports import Matrix
from services.runtime.errors import FailedPrecondition

_COPIED = 512 * 1024 * 1024
"""Bytes of a graph up to which questions have a session, and so weights, of their own."""


class Model(LocalModel):
    """A model in ONNX Runtime."""

    backend = "onnx"
    overtakes = True

    def open(self, folder: ModelFolder) -> str:
        if self._precision == "bfloat16":
            raise FailedPrecondition(
                "PRECISION_UNSUPPORTED",
                "EMBEDDING_BACKEND=onnx computes in float32 or int8; bfloat16 needs openvino or "
                "sentence-transformers.",
            )
        int8 = self._precision == "int8"
        path = graphs.graph(folder, self._data, int8=int8)
        self._session: Any = open_session(path, device=self._device, threads=self._threads)
        self._urgent_session = self._session
        weights = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
        if self._threads > 1 and weights <= _COPIED:
            # Its one thread is the caller's, so a question meets no helper of low priority.
            self._urgent_session = open_session(path, device=self._device, threads=1)
        self._inputs = [one.name for one in self._session.get_inputs()]
        names = [one.name for one in self._session.get_outputs()]
        self._output, self._is_pooled = graphs.output(names, folder)
        self._output_name = names[self._output]
        self._pooling = folder.pooling
        return "int8" if int8 else "float32"

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        return self._run(self._session, batch)

    def forward_urgent(self, batch: Sequence[Sequence[int]]) -> Matrix:
        return self._run(self._urgent_session, batch)

    def _run(self, session: Any, batch: Sequence[Sequence[int]]) -> Matrix:
        ids, mask = self.padded(batch)
        (made,) = session.run([self._output_name], graphs.feed(self._inputs, ids, mask))
        return normalized(made) if self._is_pooled else graphs.pooled(made, mask, self._pooling)
