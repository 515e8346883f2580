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
WAITING = Gauge("ragmesh_infer_waiting", "Generations in the queue now.", ["provider"])
WAIT_SECONDS = Histogram(
    "ragmesh_infer_wait_seconds",
    "Time that generations which had to wait spent in the queue, in seconds.",
    ["provider"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
SHED = Counter(
    "ragmesh_infer_shed",
    "Generations that were refused for want of room: full, displaced (a tenant with less in the "
    "queue came), hopeless (their time would end in the queue), deadline (it did).",
    ["provider", "reason"],
)
PROMPTS = Counter(
    "ragmesh_infer_prompts", "Prompts that were rendered.", ["task", "language", "version"]
)
ENGINE_RUNNING = Gauge(
    "ragmesh_infer_engine_running", "Generations that an engine says it runs.", ["provider"]
)
ENGINE_WAITING = Gauge(
    "ragmesh_infer_engine_waiting", "Generations that an engine says wait in it.", ["provider"]
)
ENGINE_CACHE = Gauge(
    "ragmesh_infer_engine_cache_used",
    "Share of its attention cache that an engine says is used, 0 to 1.",
    ["provider"],
)
