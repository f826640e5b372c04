"""A whole site: 100,000 files flat, 1,000,000 sharded; its pages, a new file, its nights, memory.

A tree whose outputs are nine tenths done (``scale_tree.py``) goes to Dagster by the product's own
sensors' services. Then its pages are opened in a real Chromium (``scale_pages.py``), a chain file
is added beside a running daemon, and nights are spent (``scale_nights.py``). The flat site is
grown above its limit in the end and becomes sharded. Writes ``results/scale_site.csv`` and, with
``--screenshots``, pictures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import psutil
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from scale_common import host_facts, write_rows
from scale_nights import nights
from scale_pages import visit
from scale_tree import Shape, add_chains, cluster_keys, keys_of, make_tree

from reddit_assets.corpus.buckets import Buckets, read_buckets, state_buckets
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port
from reddit_assets.platform.choice import FLAT_LIMIT
from reddit_assets.platform.names import AssetSet, asset_sets, set_of
from reddit_assets.platform.services.discover import Discover
from reddit_assets.platform.services.reconcile import Reconcile
from reddit_assets.platform.services.tick import Service
from reddit_assets.workspace import Workspace
from reddit_assets_tests.platform_stack import Stack, wait_for

RESULTS = Path(__file__).parent / "results" / "scale_site.csv"
Row = tuple[str, float, str]

LOAD = """
import time; started = time.perf_counter()
import reddit_assets.definitions as d
d.defs.get_repository_def().asset_graph
print(time.perf_counter() - started)
"""


def into_dagster(workspace: Workspace, instance: DagsterInstance) -> Iterator[Row]:
    """Partitions and jobs of every file, events of every output that is there."""
    for name, service in (("discovery", Discover(workspace)), ("reconcile", Reconcile(workspace))):
        began = time.perf_counter()
        ticks = until_quiet(service, instance)
        yield f"{name}: everything is new", time.perf_counter() - began, f"s in {ticks} ticks"


def until_quiet(service: Service, instance: DagsterInstance) -> int:
    """Ticks until one leaves nothing to the next; their number."""
    cursor, ticks = None, 0
    while True:
        tick = service.tick(instance, cursor)
        ticks += 1
        if not any("next tick" in said for said in tick.sentences):
            return ticks
        cursor = tick.cursor


def new_file(stack: Stack, shape: Shape, number: int) -> Iterator[Row]:
    """A chain file arrives: until Dagster has its partition and its event, in ticks' intervals."""
    subreddit = next(islice(cluster_keys(shape), number, None))
    wait_for(lambda: stack.tick("discovery"), 900, "discovery has looked")
    (key,) = add_chains(stack.layout, shape, [subreddit], "arrived")
    began = time.perf_counter()
    assets = set_of("chains", key, read_buckets(stack.layout))
    name = assets.files.name or ""
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home))) as instance:
        wait_for(lambda: instance.has_dynamic_partition(name, key), 600, "the partition is there")
    seconds = time.perf_counter() - began
    yield "a new file is a partition after", seconds, "s"
    yield "the same, in discovery's intervals", seconds / stack.settings.discovery_seconds, "ticks"


def memory(stack: Stack, postgres: PostgresServer) -> Iterator[Row]:
    """Resident memory of the servers, and Postgres on the disk."""
    for name, process in stack.processes.items():
        yield f"{name}: memory", megabytes(process.pid), "MB"
    yield "Postgres: memory", megabytes(postgres.child.pid), "MB"
    used = sum(f.stat().st_size for f in postgres.folder.rglob("*") if f.is_file())
    yield "Postgres: disk", used / 1e6, "MB"


def megabytes(process: int) -> float:
    """Proportional memory of a process and its children."""
    parent, total = psutil.Process(process), 0
    for one in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_full_info().pss
    return total / 1e6


def new_key(stack: Stack, buckets: Buckets, subreddit: str) -> Iterator[Row]:
    """What one new partition costs the asset that it belongs to, and another one."""
    mine = AssetSet(buckets.of(subreddit))
    others = [one for one in asset_sets(buckets) if one != mine]
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home))) as instance:
        for assets in (mine, *others[:1]):
            stack.counts("/".join(assets.embeddings.path))
        instance.add_dynamic_partitions(mine.files.name or "", [f"{subreddit}/one_more"])
    for what, assets in zip(("its asset", "another bucket"), (mine, *others[:1]), strict=False):
        began = time.perf_counter()
        stack.counts("/".join(assets.embeddings.path))
        yield f"one new key: counts of {what}", time.perf_counter() - began, "s"


def grown(stack: Stack, shape: Shape, workspace: Workspace) -> Iterator[Row]:
    """More files than the flat layout takes: the next code server is sharded, with every output."""
    statuses = workspace.scanner().scan()
    done = sum(file.verdict.done for status in statuses for file in status.files)
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home))) as instance:
        flat = len(instance.get_materialized_partitions(AssetSet(None).embeddings))
        more = FLAT_LIMIT - shape.files + 1_000
        add_chains(stack.layout, shape, islice(cluster_keys(shape), more), "grown")
        stack.kill()
        began = time.perf_counter()
        stack.start()
        buckets = read_buckets(stack.layout)
        assert buckets.names, "the layout is flat still"
        assets = [one.embeddings for one in asset_sets(buckets)]

        def everything() -> bool:
            found = sum(len(instance.get_materialized_partitions(asset)) for asset in assets)
            return found >= done

        wait_for(everything, 1_200, "the buckets have every output")
        yield "flat to sharded: the buckets have every output", time.perf_counter() - began, "s"
        kept = len(instance.get_materialized_partitions(AssetSet(None).embeddings))
        assert kept == flat, "events of the flat assets were lost"


def measure(folder: Path, files: int, pictures: Path | None) -> Iterator[Row]:
    """One site."""
    shape = Shape(files)
    make_tree(folder / "root", shape)
    with (
        PostgresServer(folder / "postgres", config={"fsync": "off"}) as postgres,
        ValkeyServer(folder / "valkey", port=free_port()) as valkey,
    ):
        stack = Stack(
            folder,
            valkey.url,
            postgres.url,
            layout="auto",
            discovery_seconds=30,
            snapshot_dir=folder / "snapshots",
            settle_seconds=0.0,
        )
        buckets = Buckets.for_files(files) if files > FLAT_LIMIT else read_buckets(stack.layout)
        if buckets.names:
            state_buckets(stack.layout, buckets)
        workspace = Workspace.load(stack.settings.model_copy(update={"tick_seconds": 600.0}))
        with DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home))) as instance:
            yield from into_dagster(workspace, instance)
            loads = subprocess.run(
                [sys.executable, "-c", LOAD],
                env=stack.env,
                capture_output=True,
                text=True,
                check=True,
            )
            yield "definitions load", float(loads.stdout), "s"
            began = time.perf_counter()
            stack.start("code-server", "webserver")
            yield "from start to loaded page", time.perf_counter() - began, "s"
            try:
                subreddit = next(cluster_keys(shape))
                key = keys_of(subreddit, 1)[0]
                yield from visit(stack.url, buckets, key, pictures)
                yield from new_key(stack, buckets, subreddit)
                stack.start("daemon")
                yield from new_file(stack, shape, 7)
                yield from memory(stack, postgres)
                stack.kill("daemon")
                yield from nights(workspace, instance, shape)
                if files == FLAT_LIMIT:
                    yield from grown(stack, shape, workspace)
            finally:
                stack.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[FLAT_LIMIT, 1_000_000])
    parser.add_argument("--screenshots", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.screenshots is not None:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    facts = host_facts("dagster")
    for files in options.files:
        with tempfile.TemporaryDirectory(prefix="scale-site-") as folder:
            for what, value, unit in measure(Path(folder), files, options.screenshots):
                rows.append((f"{files} files, {what}", value, unit))
                print(f"{rows[-1][0]:70} {value:10.2f} {unit}", flush=True)
                # Hours may lie behind: what is known is kept.
                write_rows(options.out, ("what", "value", "unit"), rows, facts)


if __name__ == "__main__":
    main()
