"""Engines. Adding one is a module here and a line in REGISTRY."""

from collections.abc import Mapping

REGISTRY: Mapping[str, str] = {
    "extractive": "services.infer.adapters.extractive:ExtractiveEngine",
    "nim": "services.infer.adapters.openai:OpenAIEngine",
    "openai": "services.infer.adapters.openai:OpenAIEngine",
    "scripted": "services.infer.adapters.scripted:ScriptedEngine",
    "vllm": "services.infer.adapters.openai:OpenAIEngine",
}
"""Provider -> class with ``from_settings(provider, settings)``; only the chosen are imported."""

PLANNED = frozenset(
    {
        "aira",
        "anthropic",
        "azure",
        "litellm",
        "llamacpp",
        "ollama",
        "sglang",
        "tgi",
        "transformers",
        "triton",
        "trtllm",
        "vllm-grpc",
        "vllm-local",
    }
)
"""Providers that a later version brings: asking for one stops the start and says so."""
