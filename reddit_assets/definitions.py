"""What Dagster loads: assets, checks, sensors, the nightly schedule, jobs.

Loads without Redis, Postgres, models or a root being there. Where a root is, a code server counts
its files (:mod:`~reddit_assets.platform.choice`).
"""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from reddit_assets.platform.bucket_overview import make_buckets
from reddit_assets.platform.choice import buckets_to_define, remembering
from reddit_assets.platform.dumps import make_dumps
from reddit_assets.platform.factory import make_assets, make_inputs
from reddit_assets.platform.jobs import (
    make_corpus,
    make_nightly,
    make_schedule,
    make_steering_jobs,
)
from reddit_assets.platform.names import asset_sets
from reddit_assets.platform.resources import Platform
from reddit_assets.platform.sensors import make_sensors
from reddit_assets.settings import load_settings

settings = load_settings()
buckets = buckets_to_define(settings)
sets = asset_sets(buckets)
nightly = make_nightly()

defs = remembering(
    Definitions(
        assets=[
            *(asset for one in sets for asset in make_assets(one, settings.backfill_run_size)),
            make_inputs(),
            make_dumps(settings.backfill_run_size),
            make_corpus(sets),
            *([make_buckets(buckets)] if buckets.names else []),
        ],
        sensors=make_sensors(settings.discovery_seconds, sets),
        schedules=[make_schedule(nightly, settings.nightly_cron, settings.nightly_timezone)],
        jobs=[nightly, *make_steering_jobs()],
        resources={"platform": Platform(buckets=buckets)},
        # A run worker that is killed must not leave a step behind that goes on recording.
        executor=in_process_executor,
    ),
    buckets,
)
