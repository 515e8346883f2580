"""What infer counts."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "ragmesh_infer_requests", "Generations that ended, by outcome.", ["provider", "outcome"]
)
ABORTED = Counter(
    "ragmesh_infer_aborted",
    "Generations whose engine was stopped because the caller left or its time ran out.",
    ["provider"],
)
IN_FLIGHT = Gauge("ragmesh_infer_in_flight", "Generations running or waiting now.", ["provider"])
FIRST_DELTA_SECONDS = Histogram(
    "ragmesh_infer_first_delta_seconds",
    "Time from a request to its first delta, in seconds.",
    ["provider"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
TOKENS = Counter(
    "ragmesh_infer_tokens", "Tokens read and written, estimates included.", ["provider", "kind"]
)
