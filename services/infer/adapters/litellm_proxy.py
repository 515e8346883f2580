"""LiteLLM's proxy by URL: OpenAI's protocol, with the library's exceptions as messages."""

import re
from dataclasses import replace

from services.infer.adapters.failures import (
    LIMITED,
    NO_MODEL,
    OUT_OF_QUOTA,
    OVERLOADED,
    TOO_LONG,
    UNAUTHENTICATED,
    UNSUPPORTED,
    ErrorTable,
)
from services.infer.adapters.openai_errors import CODES, NUMBERS, PATTERNS
from services.infer.adapters.openai_protocol import FAMILY, OpenAIProtocolEngine

CAN = replace(FAMILY, top_k=False, completions=True, lists_all=False)
"""What most of LiteLLM's providers can; what one of them cannot is refused by the library."""


class LiteLlmProxy(OpenAIProtocolEngine):
    """The proxy."""

    can = CAN
    errors = ErrorTable(
        {
            **CODES,
            "auth_error": UNAUTHENTICATED,
            "budget_exceeded": OUT_OF_QUOTA,
            "throttling_error": LIMITED,
        },
        (
            (re.compile(r"ContextWindowExceededError"), TOO_LONG),
            (re.compile(r"UnsupportedParamsError"), UNSUPPORTED),
            (re.compile(r"Invalid model name|ProxyModelNotFoundError"), NO_MODEL),
            (re.compile(r"No deployments? available", re.I), OVERLOADED),
            *PATTERNS,
        ),
        numbers=NUMBERS,
    )
