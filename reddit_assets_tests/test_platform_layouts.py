"""The same in both layouts: what people see and steer, with the real pieces."""

from __future__ import annotations

from pathlib import Path

import pytest

from reddit_assets.corpus.buckets import read_buckets
from reddit_assets.local.servers import PostgresServer
from reddit_assets.platform.reporting.assets import asset_path
from reddit_assets_tests.platform_stack import running, wait_for
from reddit_assets_tests.platform_worker import write_chain

TEA = [f"as/Tea/c_{i}" for i in range(3)]
JAM = [f"as/Jam/c_{i}" for i in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "sharded"])
def test_files_changes_and_backfills_work_alike(
    layout: str, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    with running(tmp_path, postgres_server, [*TEA, *JAM], layout=layout) as live:
        stack = live.stack
        buckets = read_buckets(stack.layout)
        assert bool(buckets.names) == (layout == "sharded")

        def of(asset: str, key: str) -> str:
            return "/".join(asset_path(asset, key, buckets))

        # Given files that become partitions and outputs by themselves,
        wait_for(lambda: stack.counts(of("clusters", "as/Tea"))[0], 90, "Tea is clustered")
        wait_for(lambda: stack.counts(of("clusters", "as/Jam"))[0], 90, "Jam is clustered")
        assert len(stack.events(of("embeddings", TEA[0]), TEA[0])) == 1
        live.settle()
        # if one changes, then it alone is made again,
        write_chain(stack.layout, TEA[1], salt="changed")
        wait_for(
            lambda: len(stack.events(of("embeddings", TEA[1]), TEA[1])) == 2, 60, "the new one"
        )
        assert len(stack.events(of("embeddings", TEA[0]), TEA[0])) == 1
        # and a backfill of a file and its cluster succeeds, in a run of the same definitions.
        backfill = stack.backfill_by_assets(
            {of("embeddings", TEA[0]): [TEA[0]], of("clusters", "as/Tea"): ["as/Tea"]}
        )
        assert stack.wait_backfill(backfill)["status"] == "COMPLETED_SUCCESS"
        assert len(stack.events(of("embeddings", TEA[0]), TEA[0])) == 2
