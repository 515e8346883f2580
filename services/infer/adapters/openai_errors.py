"""What servers that speak OpenAI's protocol say when they fail, in our terms."""

import re
from collections.abc import Mapping

from services.infer.adapters.failures import (
    FILTERED,
    LIMITED,
    NO_MODEL,
    OUT_OF_QUOTA,
    OVERLOADED,
    TOO_LONG,
    UNAUTHENTICATED,
    UNSUPPORTED,
    ErrorTable,
    Meaning,
)

CODES: Mapping[str, Meaning] = {
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "context_length_exceeded": TOO_LONG,
    "insufficient_quota": OUT_OF_QUOTA,
    "billing_hard_limit_reached": OUT_OF_QUOTA,
    "credit_balance_exhausted": OUT_OF_QUOTA,
    "organization_spend_limit_exceeded": OUT_OF_QUOTA,
    "organization_usage_limit_exceeded": OUT_OF_QUOTA,
    "project_spend_limit_exceeded": OUT_OF_QUOTA,
    "invalid_api_key": UNAUTHENTICATED,
    "model_not_found": NO_MODEL,
    "notfounderror": NO_MODEL,
    "not_found_error": NO_MODEL,
    "overloaded_error": OVERLOADED,
    "rate_limit_error": LIMITED,
    "rate_limit_exceeded": LIMITED,
    "slow_down": LIMITED,
    "server_is_overloaded": OVERLOADED,
    "service_unavailable": OVERLOADED,
    "service_unavailable_error": OVERLOADED,
    "serviceunavailableerror": OVERLOADED,
    "unsupported_parameter": UNSUPPORTED,
    "unsupported_value": UNSUPPORTED,
}
"""`code` or `type` of the error object, in lower case -> meaning. `server_error` and the like say
less than the status."""

TOO_LONG_TEXT = re.compile(
    r"maximum context length|context[ _](?:length|window|size)|too many tokens|max_model_len", re.I
)

NUMBERS = (
    re.compile(
        r"maximum context length (?:is|of) (?P<limit>\d+) tokens.*?"
        r"(?:contains at least|requested about|requested|resulted in|has|contains) "
        r"(?P<needed>\d+)(?: input)? (?:input )?tokens",
        re.I | re.S,
    ),
    re.compile(r"tokens? \((?P<needed>[\d,]+)\) exceeds? .*?\((?P<limit>[\d,]+)\)", re.I),
    re.compile(r"Requested tokens \((?P<needed>\d+)\) exceed context window of (?P<limit>\d+)"),
    re.compile(r"max_tokens=(?P<needed>\d+) .*?max_model_len=(?P<limit>\d+)"),
    re.compile(r"maximum context length (?:is|of) (?P<limit>\d+)", re.I),
)
"""Of OpenAI's, vLLM's and llama-cpp-python's wording."""

PATTERNS = ((TOO_LONG_TEXT, TOO_LONG),)

OPENAI_ERRORS = ErrorTable(CODES, PATTERNS, numbers=NUMBERS)
