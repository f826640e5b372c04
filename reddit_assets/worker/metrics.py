"""A worker's own metrics, in Prometheus' conventions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["BYTES", "FAILURES", "HELD", "JOBS", "ROWS", "SECONDS", "STAGES", "TOKENS"]

JOBS = Counter("reddit_assets_jobs", "Jobs ended by this worker.", ["kind", "outcome"])
ROWS = Counter("reddit_assets_rows", "Rows computed by this worker.", ["kind"])
TOKENS = Counter("reddit_assets_tokens", "Tokens embedded by this worker.", ["kind"])
BYTES = Counter("reddit_assets_input_bytes", "Bytes of input of jobs that it did.", ["kind"])
SECONDS = Counter(
    "reddit_assets_compute_seconds",
    "Seconds of computing; its rate is the utilisation.",
    ["kind"],
)
HELD = Gauge("reddit_assets_held_jobs", "Jobs leased to this worker now.", ["kind"])
FAILURES = Counter(
    "reddit_assets_failures", "Attempts that failed, by the error's name.", ["kind", "reason"]
)
STAGES = Histogram(
    "reddit_assets_stage_seconds",
    "Seconds of a job's stages: fetched ahead, worked on (reading and writing included), computed, "
    "published.",
    ["kind", "stage"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400),
)
