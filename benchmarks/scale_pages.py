"""Dagster's pages in a real Chromium: flat with 100,000 files, sharded with 1,000,000.

The storage is filled through our own batch path: partitions, a chain file's and an embedding's
event for nine files of ten, clusters. Each page is opened in a fresh browser, twice: the first
visit may rebuild Dagster's cache of partitions. Peer: the lineage of two unpartitioned assets, in
the same run. Writes ``results/scale_pages.csv`` and, with ``--screenshots``, pictures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
from dagster import AssetKey, AssetMaterialization, DagsterInstance
from dagster._core.instance.ref import InstanceRef
from playwright.sync_api import Page, sync_playwright
from scale_common import host_facts, write_rows

from reddit_assets.corpus.buckets import FLAT, Buckets, state_buckets
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port
from reddit_assets.platform.names import AssetSet, asset_sets
from reddit_assets.platform.reporting import records
from reddit_assets.platform.reporting.assets import page_path
from reddit_assets.platform.reporting.events import chains_event
from reddit_assets_tests.platform_stack import Stack
from reddit_assets_tests.test_browser_dagster import FLAGS

RESULTS = Path(__file__).parent / "results" / "scale_pages.csv"
Row = tuple[str, float, str]

LOAD = """
import time; started = time.perf_counter()
import reddit_assets.definitions as d
d.defs.get_repository_def().asset_graph
print(time.perf_counter() - started)
"""


def sets_with_keys(files: int, buckets: Buckets) -> Iterator[tuple[AssetSet, list[str]]]:
    """Each set of assets with the subreddits in it; ten files in each."""
    found: dict[str | None, list[str]] = {one.bucket: [] for one in asset_sets(buckets)}
    for number in range(files // 10):
        key = f"{number % 676:03x}/sub_{number:06}"
        found[buckets.of(key)].append(key)
    for bucket, keys in found.items():
        yield AssetSet(bucket), sorted(keys)


def fill(instance: DagsterInstance, files: int, buckets: Buckets) -> int:
    """Partitions and events; the number of events."""
    events = 0
    for assets, subreddits in sets_with_keys(files, buckets):
        keys = [f"{key}/chunk_{number}" for key in subreddits for number in range(10)]
        for name, group in ((assets.files.name, keys), (assets.subreddits.name, subreddits)):
            for start in range(0, len(group), 5_000):
                instance.add_dynamic_partitions(name or "", group[start : start + 5_000])
        done = [key for key in keys if not key.endswith("_9")]
        for start in range(0, len(done), 10_000):
            part = done[start : start + 10_000]
            facts = {"rows": 200, "bytes": 20_000}
            records.report(instance, [chains_event(assets, k, f"v-{k}", facts) for k in part])
            records.report(instance, [made(assets.embeddings, key) for key in part])
        records.report(instance, [made(assets.clusters, key) for key in subreddits[::2]])
        events += 2 * len(done) + len(subreddits[::2])
    return events


def made(asset: AssetKey, key: str) -> AssetMaterialization:
    """An event as small as ours are for adopted files."""
    tags = {"dagster/data_version": f"v-{key}", "dagster/data_version_is_user_provided": "true"}
    return AssetMaterialization(asset, partition=key, metadata={"rows": 200}, tags=tags)


def seconds_to(page: Page, url: str, text: str) -> float:
    """From the request until ``text`` is on the page."""
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.get_by_text(text).first.wait_for(state="visible", timeout=120_000)
    return time.perf_counter() - started


def pages_of(buckets: Buckets, key: str) -> dict[str, tuple[str, str]]:
    """The pages: path, and a text that is there when the page is filled."""
    assets = AssetSet(buckets.of(key.rpartition("/")[0]))
    names = [each.to_user_string() for each in (assets.chains, assets.embeddings, assets.clusters)]
    wanted = quote(" or ".join(f'key:"{name}"' for name in names))
    path = "/".join(quote(part) for part in assets.embeddings.path)
    found = {
        "peer: lineage of two assets": (
            f"/asset-groups~{quote('key:model or key:cluster_settings')}/",
            "cluster_settings",
        ),
        "lineage": (f"/asset-groups~{wanted}/", "% filled"),
        "partitions": (f"/assets/{path}?view=partitions", "/chunk_0"),
        "one partition": (page_path("embeddings", key, buckets), "rows"),
    }
    if buckets.names:
        found["all buckets"] = ("/assets/buckets?view=partitions", buckets.names[0])
        found["lineage of everything"] = ("/asset-groups/", "bucket_")
    return found


def visit(url: str, buckets: Buckets, key: str, pictures: Path | None) -> list[Row]:
    """Every page, twice, each in a fresh browser."""
    rows: list[Row] = []
    layout = "sharded" if buckets.names else "flat"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        for name, (path, text) in pages_of(buckets, key).items():
            for time_ in ("first", "second"):
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                try:
                    seconds = seconds_to(page, url + path, text)
                except Exception as error:  # a page that does not come is a result, too
                    print(f"{name}: {str(error).splitlines()[0]}")
                    seconds = float("nan")
                rows.append((f"{layout}: {name}, {time_} visit", seconds, "s"))
                print(f"{rows[-1][0]:50} {seconds:8.2f} s", flush=True)
                if pictures is not None:
                    page.wait_for_timeout(500)
                    page.screenshot(path=pictures / f"{layout}-{name.replace(':', '')}-{time_}.png")
                browser.close()
    return rows


def megabytes(process: int) -> float:
    """Resident memory of a process and its children."""
    family = psutil.Process(process)
    return sum(p.memory_info().rss for p in (family, *family.children(recursive=True))) / 1e6


def measure(folder: Path, files: int, pictures: Path | None) -> list[Row]:
    """One layout."""
    buckets = Buckets.for_files(files) if files > 100_000 else FLAT
    layout = "sharded" if buckets.names else "flat"
    rows: list[Row] = []
    with (
        PostgresServer(folder / "postgres", config={"fsync": "off"}) as postgres,
        ValkeyServer(folder / "valkey", port=free_port()) as valkey,
    ):
        stack = Stack(folder, valkey.url, postgres.url, layout="auto")
        if buckets.names:
            state_buckets(stack.layout, buckets)
        with DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home))) as instance:
            started = time.perf_counter()
            events = fill(instance, files, buckets)
            seconds = time.perf_counter() - started
            rows.append((f"{layout}: events stored", events / seconds, "per s"))
            print(f"{events} events in {seconds:.0f} s", flush=True)
        loads = subprocess.run(
            [sys.executable, "-c", LOAD], env=stack.env, capture_output=True, text=True, check=True
        )
        rows.append((f"{layout}: definitions load", float(loads.stdout), "s"))
        started = time.perf_counter()
        stack.start("code-server", "webserver")
        rows.append((f"{layout}: from start to loaded page", time.perf_counter() - started, "s"))
        try:
            key = "001/sub_000001/chunk_0"
            rows += visit(stack.url, buckets, key, pictures)
            rows += new_key(stack, buckets)
            for name in ("code-server", "webserver"):
                rows.append((f"{layout}: {name}", megabytes(stack.processes[name].pid), "MB"))
        finally:
            stack.kill()
        used = sum(f.stat().st_size for f in (folder / "postgres").rglob("*") if f.is_file())
        rows.append((f"{layout}: Postgres on disk", used / 1e6, "MB"))
    return [(f"{files} files, {what}", value, unit) for what, value, unit in rows]


def new_key(stack: Stack, buckets: Buckets) -> list[Row]:
    """What one new partition costs the asset that it belongs to, and another one."""
    key = "001/sub_000001/chunk_new"
    mine = AssetSet(buckets.of("001/sub_000001"))
    others = [one for one in asset_sets(buckets) if one != mine]
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(stack.home))) as instance:
        for assets in (mine, *others[:1]):
            stack.counts("/".join(assets.embeddings.path))
        instance.add_dynamic_partitions(mine.files.name or "", [key])
    rows: list[Row] = []
    for what, assets in zip(("its asset", "another bucket"), (mine, *others[:1]), strict=False):
        started = time.perf_counter()
        stack.counts("/".join(assets.embeddings.path))
        seconds = time.perf_counter() - started
        rows.append((f"one new key: counts of {what}", seconds, "s"))
        print(f"{rows[-1][0]:50} {seconds:8.2f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--screenshots", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.screenshots is not None:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for files in options.files:
        with tempfile.TemporaryDirectory(prefix="scale-pages-") as folder:
            rows += measure(Path(folder), files, options.screenshots)
    facts = host_facts("dagster")
    write_rows(options.out, ("what", "value", "unit"), rows, facts)


if __name__ == "__main__":
    main()
