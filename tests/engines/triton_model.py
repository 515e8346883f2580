"""A decoupled model with TensorRT-LLM's tensors on a real Triton, for `test_triton`; run by the
Python that has nvidia-pytriton: ``triton_model.py HTTP GRPC METRICS``."""

import sys
import time

import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

TEXT = "こんにちは、世界。The quick brown fox: 日本語!"


def _text(value):
    return {"text_output": np.array([[value]], dtype=bytes)}


def generate(requests):
    """Says TEXT byte by byte, endlessly where the prompt asks for it; a long one is refused."""
    (request,) = requests
    prompt = bytes(request["text_input"].flat[0]).decode()
    limit = int(request["max_tokens"].flat[0])
    if len(prompt) > 4096:
        raise ValueError(f"Prompt length ({len(prompt)}) exceeds maximum input length (4096)")
    endless = "endless" in prompt
    for _ in range(limit if endless else 1):
        for byte in TEXT.encode():
            yield [_text(bytes([byte]))]
        if endless:
            time.sleep(0.01)


def main(http, grpc, metrics):
    config = TritonConfig(
        http_address="127.0.0.1", http_port=http, grpc_address="127.0.0.1", grpc_port=grpc,
        metrics_port=metrics,
    )  # fmt: skip
    with Triton(config=config) as triton:
        triton.bind(
            "ensemble",
            generate,
            inputs=[
                Tensor(name="text_input", dtype=bytes, shape=(1,)),
                Tensor(name="max_tokens", dtype=np.int32, shape=(1,)),
                Tensor(name="stream", dtype=np.bool_, shape=(1,)),
            ],
            outputs=[Tensor(name="text_output", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=1, decoupled=True),
        )
        triton.serve()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
