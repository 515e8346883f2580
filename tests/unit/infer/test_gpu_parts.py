"""What the tests on a GPU are made of, as far as it needs none: models, settings, commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from services.infer.adapters.vllm_local import engine_arguments
from tests.engines.random_model import (
    CONTEXT,
    END,
    GROUP,
    HIDDEN,
    INTERMEDIATE,
    LAYERS,
    PAD,
    START,
    Quantization,
    make,
    packed,
)
from tests.engines.test_gpu import CASES, Case, case_of


def unpacked(kind: Quantization, parts: dict[str, Any]) -> Any:
    """The weights that a packed layer stands for, outputs by inputs, written down from the formats:
    AWQ's eight outputs of a number lie in the order 0 2 4 6 1 3 5 7, GPTQ's eight inputs in theirs,
    and its zeros are one less than they are."""

    def nibbles(numbers: Any) -> Any:
        return (numbers.unsqueeze(-1).long() >> torch.arange(0, 32, 4)) & 15

    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]) if kind == "awq" else torch.arange(8)
    zeros = nibbles(parts["qzeros"])[..., order].flatten(1) + (kind == "gptq")
    if kind == "awq":
        weights = nibbles(parts["qweight"])[..., order].flatten(1)
    else:
        weights = nibbles(parts["qweight"]).transpose(1, 2).flatten(0, 1)
    groups = torch.arange(weights.shape[0]) // GROUP
    return ((weights - zeros[groups]) * parts["scales"][groups].float()).T


@pytest.mark.parametrize("kind", ["awq", "gptq"])
def test_packed_weights_spread_around_nothing(kind: Quantization):
    torch.manual_seed(0)
    made = unpacked(kind, packed(kind, INTERMEDIATE, HIDDEN))
    assert made.shape == (INTERMEDIATE, HIDDEN)
    assert made.unique().numel() == 16
    assert made.min().item() == pytest.approx(-8 * 0.02, rel=1e-3)
    assert made.max().item() == pytest.approx(7 * 0.02, rel=1e-3)


@pytest.mark.parametrize("kind", ["awq", "gptq"])
def test_a_model_is_saved_in_the_formats_own_layout(kind: Quantization, tmp_path: Path):
    weights = load_file(make(tmp_path, quantization=kind) / "model.safetensors")
    down = {
        name.rpartition(".")[2]: (tuple(value.shape), value.dtype)
        for name, value in weights.items()
        if ".0.mlp.down_proj." in name
    }
    rows = (INTERMEDIATE, HIDDEN // 8) if kind == "awq" else (INTERMEDIATE // 8, HIDDEN)
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        "qweight": (rows, torch.int32),
        "qzeros": ((INTERMEDIATE // GROUP, HIDDEN // 8), torch.int32),
        "scales": ((INTERMEDIATE // GROUP, HIDDEN), torch.float16),
    }
    if kind == "gptq":
        expected["g_idx"] = ((INTERMEDIATE,), torch.int32)
    assert down == expected
    assert sum(name.endswith("qweight") for name in weights) == 7 * LAYERS
    # Biases, norms, embeddings and the head stay as they are.
    assert weights["lm_head.weight"].dtype == torch.float16
    config = json.loads((tmp_path / "config.json").read_text())
    said = config["quantization_config"]
    assert (said["quant_method"], said["bits"], said["group_size"]) == (kind, 4, GROUP)
    assert config["max_position_embeddings"] == CONTEXT


def test_its_tokenizer_knows_every_byte_and_its_own_marks(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(make(tmp_path))
    for text in ("The quick brown fox", "日本語と🦊", "naïve\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_tokens_to_ids(["<|pad|>", "<|start|>", "<|end|>"]) == [PAD, START, END]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|start|>user\nhi<|end|>\n<|start|>assistant\n"


@pytest.mark.parametrize("case", CASES, ids=case_of)
def test_a_case_reaches_vllm_as_it_is_written(case: Case, tmp_path: Path):
    arguments = engine_arguments(case.local(tmp_path))
    # AWQ has no other; see the adapter.
    assert arguments["dtype"] == ("float16" if case.quantization == "awq" else case.dtype)
    assert arguments.get("quantization", "") == case.quantization
    assert arguments["max_model_len"] == CONTEXT
    assert arguments["enforce_eager"] is True
    command = case.server("python", tmp_path, 1234)
    assert command[command.index("--dtype") + 1] == case.dtype
    assert ("--quantization" in command) is bool(case.quantization)
    if case.quantization:
        assert command[command.index("--quantization") + 1] == case.quantization


def test_every_kind_of_weights_has_a_case():
    assert {case.quantization for case in CASES} == {"", "awq", "gptq", "fp8"}
    assert {case.dtype for case in CASES} >= {"float16", "bfloat16"}
