"""``python -m services.retrieve.adapters.exporter MODEL FOLDER``: a model as ``model.onnx``.

A process of its own: torch takes some hundred megabytes, which the service then never holds. The
graph goes from token ids and mask to the model's sentence embedding, pooling and all.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

EXIT_NO_TORCH = 3


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    try:
        import torch  # noqa: PLC0415  the exit status tells whether it is there
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    except ImportError:
        raise SystemExit(EXIT_NO_TORCH) from None

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Written out, attention is what runtimes know how to fuse.
            self.model = SentenceTransformer(
                model, device="cpu", model_kwargs={"attn_implementation": "eager"}
            )

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            return self.model(features)["sentence_embedding"]

    names = ("input_ids", "attention_mask")
    shape = {0: torch.export.Dim("inputs"), 1: torch.export.Dim("tokens")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own libraries
        torch.onnx.export(
            Embedding().eval(),
            kwargs={name: torch.ones((2, 8), dtype=torch.int64) for name in names},
            f=str(folder / "model.onnx"),
            input_names=list(names),
            output_names=["sentence_embedding"],
            dynamic_shapes=dict.fromkeys(names, shape),
            dynamo=True,
            verbose=False,
            external_data=True,
        )


if __name__ == "__main__":
    main()
