"""A simulated day of a whole installation, in minutes: is anything lost, does anything grow?

    python benchmarks/soak.py [--minutes 24] [--output benchmarks/results/soak.csv]

`reddit-assets up` (Valkey, Postgres, webserver, daemon, code server, reporter, workers with the
real model), and beside it workers that come and are stopped or killed. In each of 24 hours, a 24th
of the time, small chain files arrive, change and vanish; there are three nightlies, and one at
the end. Nothing is faked: only the sensors look more often than they usually do. Then every
embedding is compared with what the exact backend makes; disk, queue and Dagster with each other.
The exit status is 1 if something was lost, or, in 12 minutes or more, grew in the second half
without need.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
from scale_common import host_facts, write_rows
from soak_common import Crew, Sample, Sampler, Tree, growths

from reddit_assets.corpus.layout import Layout
from reddit_assets.local.instance import Page
from reddit_assets.local.servers import free_port
from reddit_assets.local.state import StateDir
from reddit_assets.settings import load_settings
from reddit_assets.workspace import Workspace

HOURS = 24
NIGHTLIES = (3, 11, 19)
# A worker of `up` itself dies, and is started again.
KILLS = (5, 9)
COMMAND = (sys.executable, "-m", "reddit_assets.cli")


class Soak:
    """One run in a folder."""

    def __init__(self, folder: Path, models: Path, minutes: float) -> None:
        self._folder, self._hour_seconds = folder, 60 * minutes / HOURS
        self._root = folder / "root"
        self._layout = Layout.of(self._root)
        self._state = StateDir(folder / "state")
        self._port = free_port()
        self._page = Page(f"http://127.0.0.1:{self._port}")
        dice = random.Random(13)
        self._environment = {
            **os.environ,
            "REDDIT_ROOT": str(self._root),
            "REDDIT_STATE_DIR": str(self._state.path),
            "MODEL_DIR": str(models.absolute()),
            "REDDIT_BACKEND": "onnx",
            "REDDIT_THREADS": "1",
            "REDDIT_SETTLE_SECONDS": "1",
            "REDDIT_DISCOVERY_SECONDS": "2",
            "REDDIT_LEASE_SECONDS": "15",
            "REDDIT_REMOVE_ORPHANS": "true",
        }
        self._tree = Tree(self._layout, dice)
        self._crew = Crew(self._environment, folder / "crew.log", dice)
        self.samples: list[Sample] = []
        self.facts: dict[str, float] = {}

    def run(self) -> list[str]:
        """The day; returns what was lost, in sentences."""
        self._tree.fill()
        with self._up() as process:
            _wait(self._page_is_there, 300, "Dagster's page")
            sampler = Sampler(self._state, process.pid)
            nights = [self._hour(hour, sampler) for hour in range(HOURS)]
            self._crew.end()
            _wait(self._quiet, 600, "everything to be done")
            # What has vanished since the last nightly is the next one's work.
            nights.append(self._command("nightly", "--json").returncode)
            _wait(self._quiet, 600, "the nightly's work to be done")
            self.samples += sampler.look(HOURS)
            lost = [f"A nightly ended with status {status}." for status in nights if status]
            lost += self._lost()
        self.facts |= {
            "files written": self._tree.written + self._tree.changed,
            "files vanished": self._tree.vanished,
            "workers killed": self._crew.killed + len(KILLS),
            "workers stopped": self._crew.stopped,
            "nightlies": len(NIGHTLIES) + 1,
        }
        return lost

    @contextmanager
    def _up(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self._folder / "up.log").open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "up", "--port", str(self._port)],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            self._crew.end()
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def _page_is_there(self) -> bool:
        return "page" in self._state.facts()

    def _hour(self, hour: int, sampler: Sampler) -> int:
        """What happens in it; the status of its nightly."""
        end = time.monotonic() + self._hour_seconds
        self._tree.hour()
        self._crew.hour()
        if hour in KILLS:
            record = json.loads((self._state.records / "embed-worker.json").read_text())
            os.kill(record["pid"], signal.SIGKILL)
        status = 0
        if hour in NIGHTLIES:
            status = self._command("nightly", "--json").returncode
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, max(1.0, self._hour_seconds / 2)))
            part = 1 - max(0.0, end - time.monotonic()) / self._hour_seconds
            self.samples += sampler.look(hour + part)
        figures = {(one.subject, one.measure): one.value for one in self.samples[-200:]}
        print(
            f"hour {hour + 1}: {figures['queue', 'done']:.0f} jobs done, "
            f"{figures['queue', 'entries']:.0f} open, {figures['redis', 'keys']:.0f} keys, "
            f"{figures['dagster', 'materializations']:.0f} materializations",
            flush=True,
        )
        return status

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *words], env=self._environment, capture_output=True, text=True, check=False
        )
        with (self._folder / "commands.log").open("a") as log:
            log.write(f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}\n")
        return done

    # --- the end -------------------------------------------------------------------------
    def _workspace(self) -> Workspace:
        settings = load_settings(root=self._root, redis_url=str(self._state.facts()["redis_url"]))
        return Workspace.load(settings)

    def _quiet(self) -> bool:
        """Whether the sensors find nothing to do: twice, since they look every few seconds."""
        for _ in range(2):
            time.sleep(8)
            if not all(queue.counts().idle for queue in self._workspace().queues.values()):
                return False
        return True

    def _lost(self) -> list[str]:
        lost = [*self._differing_texts(), *self._unfinished(), *self._unreported()]
        verified = self._command("verify", "--files", "100000", "--rows", "100000", "--json")
        if verified.returncode:
            lost.append(
                f"`verify` finds vectors that are not those of the texts: {verified.stdout}"
            )
        agreed = self._command("reconcile", "--dry-run")
        if agreed.returncode:
            lost.append(f"`reconcile` finds differences: {agreed.stdout}")
        for queue in self._workspace().queues.values():
            lost += [f"Given up: {letter.key}: {letter.error}" for letter in queue.dead_letters()]
        return lost

    def _differing_texts(self) -> Iterator[str]:
        """Chain files whose embedding is missing or of other rows."""
        self.facts["embeddings compared"] = len(self._tree.keys)
        for key in self._tree.keys:
            chain = pq.read_table(self._layout.chain_path(key))
            path = self._layout.embedding_path(key)
            if not path.exists():
                yield f"{key} has no embedding."
            elif not pq.read_table(path, columns=chain.column_names).equals(chain):
                yield f"{key} has an embedding of other rows."

    def _unfinished(self) -> Iterator[str]:
        """What a deep scan does not call done."""
        for status in self._workspace().scanner(deep=True).scan():
            for file in status.files:
                if not file.verdict.done:
                    yield f"{file.key} is {file.verdict.value}."
            if status.files and (status.cluster is None or not status.cluster.verdict.done):
                yield f"The clusters of {status.cluster_key} are not current."

    def _unreported(self) -> Iterator[str]:
        """What Dagster has no materialization of."""
        known = self._page.materialized()
        subreddits = {key.rpartition("/")[0] for key in self._tree.keys}
        for asset in ("chains", "embeddings"):
            missing = set(self._tree.keys) - known.get(asset, set())
            if missing:
                yield f"Dagster lacks {len(missing)} of {asset}: {sorted(missing)[0]}, …"
        if missing := subreddits - known.get("clusters", set()):
            yield f"Dagster lacks clusters of {sorted(missing)}."


def _wait(what: Callable[[], bool], seconds: float, name: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds:.0f} s in vain for {name}.")
        time.sleep(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=24, help="real time of the 24 hours")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--folder", type=Path, help="kept afterwards; unset: a temporary one")
    parser.add_argument("--output", type=Path, help="CSV of all samples")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `up` is ended as well
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(folder, options.models, options.minutes)
        began = time.monotonic()
        lost = soak.run()
        soak.facts["minutes"] = (time.monotonic() - began) / 60
    found = growths(soak.samples)
    for one in found:
        word = "grew by its nature" if one.allowed is None else f"allowed {one.allowed:.1f}"
        mark = "TOO MUCH" if one.too_much else ""
        print(
            f"{one.subject:>18} {one.measure:<22} {one.typical:10.1f} {one.growth:+9.2f}"
            f"  {word} {mark}"
        )
    for sentence in lost:
        print(f"LOST: {sentence}")
    soak.facts["lost"] = len(lost)
    print(", ".join(f"{name} {value:.0f}" for name, value in soak.facts.items()))
    if options.output is not None:
        _write(options.output, soak)
    # In a shorter run processes are still warming up, and files vanish before their turn.
    grown = options.minutes >= 12 and any(one.too_much for one in found)
    return int(bool(lost) or grown)


def _write(path: Path, soak: Soak) -> None:
    rows: list[tuple[object, ...]] = [
        ("sample", one.hour, one.subject, one.measure, one.value, "") for one in soak.samples
    ]
    for one in growths(soak.samples):
        judged = ("growth", one.allowed) if one.allowed is not None else ("growth by nature", "")
        rows.append((judged[0], HOURS / 2, one.subject, one.measure, one.growth, judged[1]))
    rows += [("fact", HOURS, "soak", name, value, "") for name, value in soak.facts.items()]
    columns = ("part", "hour", "subject", "measure", "value", "allowed")
    write_rows(path, columns, rows, host_facts("dagster"))


if __name__ == "__main__":
    raise SystemExit(main())
