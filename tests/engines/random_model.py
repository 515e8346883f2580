"""Small language models made on the spot, with random weights: what they say is nonsense, and the
same nonsense every time at temperature 0. Everything else about them is as engines want it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

TEXTS = (
    "The quick brown fox jumps over the lazy dog. Which port does the gateway answer on?",
    "Engines stop when their callers leave, and say how many tokens they took.",
    "こんにちは、世界。今日は東京の天気を調べて、短く答えてください。",
    "推論サーバーは文字を途中で切らずに、順番に返します。",
)
CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
PAD, START, END = range(3)
"""The numbers of the tokens that are no text."""
CONTEXT = 512
HIDDEN, INTERMEDIATE, HEADS, LAYERS = 256, 512, 4, 2
GROUP = 128
"""Weights that share a scale, where they are quantised: what every kernel for 4 bits takes."""

Quantization = Literal["", "awq", "gptq"]


def make(
    folder: Path,
    *,
    dtype: str = "float16",
    quantization: Quantization = "",
    end: str = "<|end|>",
    chat_template: str = CHAT,
) -> Path:
    """Write a model of Qwen2's architecture, its heads 64 wide, with a byte-level tokenizer.

    Args:
        dtype: of the weights, as torch names it; AWQ and GPTQ have float16 alone.
        quantization: write the linear layers in 4 bits, in this format's own layout.
        end: the token that ends an answer; ``<|pad|>`` is the one with the number 0.
        chat_template: how it wants chats.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(end, chat_template)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    model = Qwen2ForCausalLM(config).to(getattr(torch, dtype)).eval()
    model.generation_config.do_sample = False
    if not quantization:
        model.save_pretrained(folder)
        return folder
    model.save_pretrained(folder)
    _quantize(folder, quantization)
    return folder


def quantization_config(kind: Quantization) -> dict[str, Any]:
    """What the model's configuration says of its weights."""
    common = {"quant_method": kind, "bits": 4, "group_size": GROUP}
    if kind == "awq":
        return {**common, "version": "gemm", "zero_point": True}
    return {**common, "desc_act": False, "sym": True, "checkpoint_format": "gptq"}


def packed(kind: Quantization, outputs: int, inputs: int) -> dict[str, Any]:
    """A linear layer of random weights of 4 bits, eight to a number, in the format's layout: AWQ
    packs along the outputs, GPTQ along the inputs."""
    import torch

    rows = (inputs, outputs // 8) if kind == "awq" else (inputs // 8, outputs)
    groups = inputs // GROUP

    def bits(*shape: int) -> Any:
        return torch.randint(-(2**31), 2**31, shape, dtype=torch.int64).to(torch.int32)

    # A zero in the middle of 0..15; GPTQ writes it less one.
    zero = 0x88888888 if kind == "awq" else 0x77777777
    made = {
        "qweight": bits(*rows),
        "qzeros": torch.full((groups, outputs // 8), zero, dtype=torch.int64).to(torch.int32),
        "scales": torch.full((groups, outputs), 0.02, dtype=torch.float16),
    }
    if kind == "gptq":
        made["g_idx"] = torch.arange(inputs, dtype=torch.int32) // GROUP
    return made


def _quantize(folder: Path, kind: Quantization) -> None:
    """Write the linear layers of the blocks anew; embeddings, norms and the head stay."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    for name in sorted(weights):
        stem, _, last = name.rpartition(".")
        if last == "weight" and stem.endswith("_proj"):
            outputs, inputs = weights.pop(name).shape
            for part, value in packed(kind, outputs, inputs).items():
                weights[f"{stem}.{part}"] = value
    save_file(weights, path, metadata={"format": "pt"})
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] = quantization_config(kind)
    config["dtype"] = config["torch_dtype"] = "float16"
    file.write_text(json.dumps(config, indent=2))


def _tokenizer(end: str, chat_template: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.train_from_iterator(
        TEXTS * 4,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|pad|>", "<|start|>", "<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        eos_token=end,
        pad_token="<|pad|>",
        chat_template=chat_template,
        model_max_length=CONTEXT,
    )
