"""Everything on one machine: servers, Dagster, reporter and workers under one supervisor."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.scan import ScanOptions
from reddit_assets.corpus.subreddits import SubredditFilter
from reddit_assets.engines.host import available_cores
from reddit_assets.errors import (
    QueueFullError,
    QueueUnavailableError,
    RedditAssetsError,
    StartupError,
)
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.completion import Completion, Watch
from reddit_assets.local.instance import AssetPartitions, Page, write_instance
from reddit_assets.local.parts import (
    HOST,
    Part,
    dagster_parts,
    family_environment,
    worker_parts,
)
from reddit_assets.local.processes import clear_leftovers
from reddit_assets.local.servers import PostgresServer, ValkeyServer, free_port, port_is_free
from reddit_assets.local.state import StateDir, default_state_dir
from reddit_assets.local.summary import Summary, rows_of_corpus
from reddit_assets.local.supervisor import Supervisor, end_together
from reddit_assets.settings import Settings

__all__ = ["Plan", "run_up"]

log = logging.getLogger(__name__)

# Ctrl+C to nothing left running takes at most 10 s: parts, then servers, then a last look.
PARTS_SECONDS, AGAIN_SECONDS, SERVERS_SECONDS = 5.0, 2.0, 2.5
LOOK_SECONDS = 2.0
WORD_SECONDS = 5.0
PAGE_SECONDS = 180.0
# A part that fails at its start this often in a row will not come up by itself.
MOST_FAILURES = 4


@dataclass(frozen=True)
class Plan:
    """What ``up`` is asked for.

    Attributes:
        port: of the Dagster page.
        workers: embedding workers.
        exit_when_done: end when everything is done, instead of running on.
        settings_fingerprint: of the clustering settings, for the scan.
    """

    port: int = 3000
    workers: int = 1
    exit_when_done: bool = False
    settings_fingerprint: str | None = None


def run_up(settings: Settings, plan: Plan, say: Callable[[str], None]) -> tuple[int, Summary]:
    """Runs everything until it is done or told to stop.

    SIGINT, SIGTERM and SIGHUP end all children within 10 seconds; a second signal kills them.

    Args:
        settings: with a root.
        plan: what is asked for.
        say: gets a sentence whenever something happens.

    Returns:
        The exit status (0; 1 with dead letters or unusable files; 130 when told to stop before
        it was done) and the summary.

    Raises:
        StartupError: the port is taken, another ``up`` runs, a part does not come up.
        SettingsError: the root or its chains/ folder is missing.
    """
    root = settings.require_root().absolute()
    settings = settings.model_copy(update={"root": root})
    layout = Layout.from_settings(settings)
    layout.require_chains()
    state = StateDir((settings.state_dir or default_state_dir(root)).absolute())
    with state:
        return _Up(settings, layout, plan, state, say).run()


class _Up:
    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        plan: Plan,
        state: StateDir,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._plan = plan
        self._state = state
        self._say = say
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._servers: list[ValkeyServer | PostgresServer] = []
        self._supervisor = Supervisor(say)
        self._page = Page(f"http://{HOST}:{plan.port}")
        self._began = time.monotonic()
        self._redis_url = ""
        self._summary = Summary(
            root=str(settings.root), page=self._page.url, state_dir=str(state.path)
        )

    def run(self) -> tuple[int, Summary]:
        with ExitStack() as stack:
            self._catch_signals(stack)
            stack.callback(self._page.close)
            found = clear_leftovers(self._state.records)
            if found:
                self._say(f"Ended what an earlier crash left running: {', '.join(found)}.")
            # Only now: it may have been a leftover that held the port.
            if not port_is_free(self._plan.port, HOST):
                raise StartupError(
                    f"Port {self._plan.port} is taken.",
                    hint=f"Choose another, for example --port {free_port()}.",
                )
            stack.callback(self._end_everything)
            environment = self._start_servers()
            watch = self._watch(environment["REDIS_URL"])
            before = {kind: dict(count.totals) for kind, count in watch.counts().items()}
            if self._plan.exit_when_done:
                watch.look()  # Work begins while Dagster is still loading.
            dagster, workers = self._parts(environment)
            busy = any(not count.idle for count in watch.counts().values())
            # Without work at hand, workers would only hold up the page.
            self._start_parts(workers + dagster if busy else dagster)
            self._wait_for_page()
            if not busy and not self._stop.is_set():
                self._start_parts(workers)
            final = self._watch_over(watch)
            self._summarise(watch, before, final)
        if self._summary.done and not (final.dead or final.problems):
            return 0, self._summary
        if self._summary.done:
            return 1, self._summary
        return (130 if self._plan.exit_when_done else 0), self._summary

    # --- start ---------------------------------------------------------------------------
    def _catch_signals(self, stack: ExitStack) -> None:
        def told(number: int, frame: object) -> None:
            if self._stop.is_set():
                self._hurry.set()
            self._stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            previous = signal.signal(number, told)
            stack.callback(signal.signal, number, previous)

    def _start_servers(self) -> dict[str, str]:
        settings, state = self._settings, self._state
        valkey = postgres = None
        if settings.redis_url is None:
            valkey = ValkeyServer(state.path / "valkey", records=state.records)
            self._servers.append(valkey)
        if settings.dagster_postgres_url is None:
            postgres = PostgresServer(state.path / "postgres", records=state.records)
            self._servers.append(postgres)
        with ThreadPoolExecutor(2) as pool:
            for started in [pool.submit(server.start) for server in self._servers]:
                started.result()
        redis_url = valkey.url if valkey is not None else settings.require_redis_url()
        if postgres is not None:
            postgres_url = postgres.url
        else:
            assert settings.dagster_postgres_url is not None
            postgres_url = settings.dagster_postgres_url.get_secret_value()
        write_instance(state.dagster_home, None if postgres is None else postgres.url)
        # For commands beside this one; somebody else's address may hold a password.
        self._redis_url = "" if valkey is None else valkey.url
        self._note()
        for server, name in ((valkey, "Valkey"), (postgres, "Postgres")):
            if server is not None:
                self._say(f"{name} runs ({server.url}).")
        return family_environment(
            settings, self._layout, state, redis_url=redis_url, postgres_url=postgres_url
        )

    def _watch(self, redis_url: str) -> Watch:
        settings = self._settings.model_copy(update={"redis_url": SecretStr(redis_url)})
        client = connect(settings)
        options = ScanOptions(
            filter=SubredditFilter.parse(settings.subreddits),
            settle_seconds=settings.settle_seconds,
            adopt=settings.adopt,
            settings_fingerprint=self._plan.settings_fingerprint,
        )
        queues = {kind: JobQueue(client, kind) for kind in Kind}
        return Watch(self._layout, options, queues, self._page)

    def _parts(self, environment: dict[str, str]) -> tuple[list[Part], list[Part]]:
        """Dagster's parts, and the workers."""
        cores = available_cores()
        return (
            dagster_parts(environment, port=self._plan.port, code_port=_code_port(self._plan.port)),
            worker_parts(self._settings, environment, workers=self._plan.workers, cores=cores),
        )

    def _start_parts(self, parts: list[Part]) -> None:
        for part in parts:
            self._supervisor.add(part.name, partial(part.start, self._state))
        names = ", ".join(part.name for part in parts)
        self._say(f"Starting {names}; logs are in {self._state.log('x').parent}.")

    def _wait_for_page(self) -> None:
        deadline = time.monotonic() + PAGE_SECONDS
        loaded = False
        while not loaded and not self._stop.wait(0.2):
            self._tick()
            if self._page.answers():
                with suppress(StartupError):
                    loaded, problem = self._page.definitions()
                    if problem:
                        break
            if time.monotonic() > deadline:
                raise StartupError(
                    f"Dagster's page did not come up within {PAGE_SECONDS:.0f} s.",
                    hint=f"Look at {self._state.log('webserver')}.",
                )
        if loaded:
            self._note(page=self._page.url)
            self._say(f"The Dagster page is {self._page.url}")
        elif not self._stop.is_set():
            raise StartupError(
                f"Dagster cannot load {problem}",
                hint=f"The whole traceback is in {self._state.log('webserver')}.",
            )

    def _note(self, **facts: str) -> None:
        self._state.note(
            pid=os.getpid(),
            redis_url=self._redis_url,
            dagster_home=str(self._state.dagster_home),
            **facts,
        )

    # --- watching ------------------------------------------------------------------------
    def _watch_over(self, watch: Watch) -> Completion:
        """Keeps everything running; returns when told to stop, or when all is done."""
        state, said = Completion(), ""
        next_look = next_word = 0.0
        while not self._stop.wait(0.25):
            self._tick()
            began = time.monotonic()
            if began < next_look:
                continue
            try:
                if self._plan.exit_when_done:
                    state = watch.look()
                    line = state.line()
                else:
                    line = watch.glance()
            except (QueueUnavailableError, QueueFullError) as error:
                log.debug("%s", error)
                continue
            now = time.monotonic()
            if line != said and (now >= next_word or state.done):
                said, next_word = line, now + WORD_SECONDS
                self._say(f"{line}.")
            if state.done and self._plan.exit_when_done:
                break
            # A look at a large tree takes long: it must not take most of the time.
            next_look = now + max(LOOK_SECONDS, 10 * (now - began))
        return state

    def _tick(self) -> None:
        for server in self._servers:
            if not server.child.running:
                ended = f"{server.child.name} ended (exit status {server.child.poll()})"
                self._say(f"{ended}; it is started again.")
                server.kill()
                server.start()
        self._supervisor.tick()
        worst = self._supervisor.most_failures()
        if worst is not None and worst.failures >= MOST_FAILURES:
            log_path = self._state.log(worst.name)
            raise StartupError(
                f"{worst.name} does not come up: {_last_lines(log_path)}",
                hint=f"Its log is {log_path}.",
            )

    # --- end -----------------------------------------------------------------------------
    def _end_everything(self) -> None:
        if self._stop.is_set():
            self._say("Stopping everything.")
        killed = end_together(
            self._supervisor.children(),
            timeout=PARTS_SECONDS,
            again_after=AGAIN_SECONDS,
            hurry=self._hurry,
        )
        log.debug("Killed at the end: %s", killed)
        servers = []
        for server in self._servers:
            with suppress(StartupError):
                servers.append(server.child)
        end_together(servers, timeout=SERVERS_SECONDS, hurry=self._hurry)
        clear_leftovers(self._state.records, grace=0)

    def _summarise(
        self, watch: Watch, before: dict[Kind, dict[str, int]], state: Completion
    ) -> None:
        summary = self._summary
        summary.seconds = round(time.monotonic() - self._began, 1)
        summary.done = state.done
        summary.restarts = self._supervisor.restarts
        summary.problems = state.problems
        summary.dead_letters = [
            {"kind": letter.kind.word, "key": letter.key, "reason": letter.error}
            for letter in state.dead
        ]
        summary.files = state.files
        summary.subreddits = state.clusters
        summary.embedding_files = state.files_done
        summary.cluster_files = state.clusters_done
        if not state.done:
            return
        summary.rows = rows_of_corpus(self._layout)
        counts: dict[str, AssetPartitions] = self._page.partition_counts()
        summary.materialized = {
            asset: {"materialized": found.materialized, "partitions": found.partitions}
            for asset, found in sorted(counts.items())
            if asset in ("chains", "embeddings", "clusters")
        }
        with suppress(RedditAssetsError):
            after = watch.counts()
            summary.work_done = {
                f"{kind.word}_jobs": after[kind].totals.get("done", 0) - before[kind].get("done", 0)
                for kind in after
            }


def _code_port(page: int) -> int:
    """A free port beside the page's: below those that the system gives to outgoing connections,
    since the code server must find it free again after a crash."""
    near = (port for port in range(page + 1_000, min(page + 1_100, 32_768)) if port_is_free(port))
    return next(near, None) or free_port()


def _last_lines(path: Path, count: int = 3) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " ".join(line.strip() for line in lines[-count:])[-600:]
