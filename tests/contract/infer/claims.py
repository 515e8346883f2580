"""What an engine claims, as a line of the table in docs/engines.md."""

from __future__ import annotations

from services.infer.ports import Capabilities

WORDS = {
    "tools": "tools",
    "tool_choice": "forced calls",
    "parallel_tool_calls": "parallel_tool_calls",
    "json_object": "JSON",
    "json_schema": "schemas",
    "logprobs": "logprobs",
    "multiple_choices": "n",
    "vision": "images",
    "seed": "seed",
    "top_k": "top_k",
    "penalties": "penalties",
    "logit_bias": "logit_bias",
    "completions": "completions",
    "prefill": "going on",
    "counts_tokens": "counting",
    "pull": "pulling",
    "load": "loading",
}


def line(provider: str, can: Capabilities) -> str:
    """The beginning of a provider's line."""
    words = [word for field, word in WORDS.items() if getattr(can, field)]
    words += [f"guide: {kind.value}" for kind in sorted(can.guides)]
    return f"| `{provider}` | {', '.join(words)} | {can.max_stops} |"
