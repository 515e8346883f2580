"""Metrics of preprocess."""

from prometheus_client import Counter, Histogram

DOCUMENTS = Counter(
    "ragmesh_preprocess_documents",
    "Documents by format and outcome (ok, or the error's reason).",
    ["format", "outcome"],
)
PARSE_SECONDS = Histogram(
    "ragmesh_preprocess_parse_seconds",
    "Time to parse one document in its worker, in seconds.",
    ["format"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
CHUNK_SECONDS = Histogram(
    "ragmesh_preprocess_chunk_seconds",
    "Time to cut one document into chunks in its worker, in seconds.",
    ["format"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
PLANS = Counter(
    "ragmesh_preprocess_plans",
    "Planned queries by outcome: standalone, completed (by a rule) or rewrite (by a model).",
    ["outcome"],
)
