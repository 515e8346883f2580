"""Encoders that the sentence-transformers library runs in torch, on a CPU or a GPU.

torch and the library take seconds to import, so that happens in `open`, in the encoder's thread,
while the server is up already and answers health checks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.retrieve.adapters.local import LocalModel
from services.retrieve.adapters.model_folder import ModelFolder, unreadable
from services.retrieve.adapters.models import computes_bfloat16
from services.retrieve.ports import Matrix
from services.runtime.errors import FailedPrecondition


class Model(LocalModel):
    """A model in torch."""

    backend = "sentence-transformers"
    overtakes = True

    def open(self, folder: ModelFolder) -> str:
        try:
            # Seconds of imports; see the module's docstring.
            import torch  # noqa: PLC0415
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415
            from transformers.utils import logging as transformers_logging  # noqa: PLC0415
        except ImportError as error:
            raise FailedPrecondition(
                "ENCODER_UNREADABLE",
                "EMBEDDING_BACKEND=sentence-transformers needs the extra ragmesh[embed-torch].",
            ) from error
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        precision = self._torch_precision()
        try:
            self._model: Any = SentenceTransformer(
                str(folder.path),
                device=self._device,
                model_kwargs={"dtype": getattr(torch, precision)},
            )
        except (OSError, ValueError, AttributeError) as error:
            raise unreadable(folder.name) from error
        self._torch = torch
        return precision

    def forward(self, batch: Sequence[Sequence[int]]) -> Matrix:
        return self._forward(batch, self._threads)

    def forward_urgent(self, batch: Sequence[Sequence[int]]) -> Matrix:
        # Threads that meet at barriers cost a short question more than they bring.
        return self._forward(batch, 1)

    def _forward(self, batch: Sequence[Sequence[int]], threads: int) -> Matrix:
        ids, mask = self.padded(batch)
        torch = self._torch
        if torch.get_num_threads() != threads:  # of the calling thread
            torch.set_num_threads(threads)
        features = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        with torch.inference_mode():
            vectors = self._model(features)["sentence_embedding"].float()
            # In bfloat16 the model's own normalisation is exact to three digits only.
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        rows: Matrix = vectors.cpu().numpy().astype(np.float32, copy=False)
        return rows

    def _torch_precision(self) -> str:
        if self._precision == "int8":
            raise FailedPrecondition(
                "PRECISION_UNSUPPORTED",
                "EMBEDDING_BACKEND=sentence-transformers computes in float32 or bfloat16; int8 "
                "needs EMBEDDING_BACKEND=onnx.",
            )
        if self._precision != "auto":
            return self._precision
        return "bfloat16" if self._device == "cpu" and computes_bfloat16() else "float32"
