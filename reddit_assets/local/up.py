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

from pydantic import SecretStr

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import (
    RedditAssetsError,
    StartupError,
)
from reddit_assets.ingest.wanted import dump_keys
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.server import check_server
from reddit_assets.local.completion import Completion, Watch
from reddit_assets.local.instance import Page, write_instance
from reddit_assets.local.logs import rotate
from reddit_assets.local.parts import (
    HOST,
    Part,
    dagster_parts,
    family_environment,
    worker_parts,
)
from reddit_assets.local.processes import Child, clear_leftovers
from reddit_assets.local.servers import (
    PostgresServer,
    ValkeyServer,
    free_port,
    port_is_free,
    said_of_root,
)
from reddit_assets.local.state import StateDir, default_state_dir
from reddit_assets.local.summary import Summary
from reddit_assets.local.supervisor import Supervisor, end_together
from reddit_assets.local.treelock import TreeLock
from reddit_assets.settings import Settings
from reddit_assets.workspace import Workspace

__all__ = ["Plan", "run_up"]

log = logging.getLogger(__name__)

# Ctrl+C to nothing left running takes at most 10 s: parts, then servers, then a last look.
PARTS_SECONDS, AGAIN_SECONDS, SERVERS_SECONDS = 5.0, 2.0, 2.5
LOOK_SECONDS = 2.0
ROTATE_SECONDS = 60.0
# A line every few seconds at first, and less often in a log of days.
WORD_SECONDS, LATER_WORD_SECONDS, FIRST_SECONDS = 5.0, 60.0, 300.0
PAGE_SECONDS = 180.0
# With --exit-when-done, a worker that failed at this many starts in a row is not waited for.
LAST_FAILURE = 5


@dataclass(frozen=True)
class Plan:
    """What ``up`` is asked for.

    Attributes:
        port: of the Dagster page.
        maps_port: of the maps' pages; ``None`` takes the next one, or another where that is taken.
        workers: embedding workers.
        exit_when_done: end when everything is done, instead of running on.
    """

    port: int = 3000
    maps_port: int | None = None
    workers: int = 1
    exit_when_done: bool = False


def run_up(
    settings: Settings,
    plan: Plan,
    say: Callable[[str], None],
    show: Callable[[str], None] | None = None,
) -> tuple[int, Summary]:
    """Runs everything until it is done or stopped.

    SIGINT, SIGTERM and SIGHUP end all children within 10 seconds; a second signal kills them.

    Args:
        settings: with a root.
        plan: what is asked for.
        say: gets a sentence whenever something happens.
        show: gets how far everything is, every few seconds; ``say`` does, now and then, if it is
            not given.

    Returns:
        The exit status (0; 1 with dead letters, unusable files or no worker that comes up; 130
        when stopped before it was done) and the summary.

    Raises:
        StartupError: the port is taken, another ``up`` runs, a part does not come up.
        SettingsError: the root or its chains/ folder is missing.
    """
    root = settings.require_root().absolute()
    settings = settings.model_copy(update={"root": root})
    layout = Layout.from_settings(settings)
    if dump_keys(settings, layout):
        layout.chains.mkdir(parents=True, exist_ok=True)  # they will be made
    layout.require_chains()
    state = StateDir((settings.state_dir or default_state_dir(root)).resolve())
    if settings.snapshot_dir is None:
        settings = settings.model_copy(update={"snapshot_dir": state.path / "snapshots"})
    with state:
        return _Up(settings, layout, plan, state, say, show).run()


class _Up:
    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        plan: Plan,
        state: StateDir,
        say: Callable[[str], None],
        show: Callable[[str], None] | None,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._plan = plan
        self._state = state
        self._say = say
        self._show = show
        self._maps_port = 0
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._servers = Supervisor(say)
        self._parts = Supervisor(say)
        self._workers: list[Part] = []
        self._page = Page(f"http://{HOST}:{plan.port}")
        self._began = time.monotonic()
        self._next_rotation = 0.0
        self._redis_url = self._lost = ""
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
            self._choose_ports()
            self._take_tree(stack)
            stack.callback(self._end_everything)
            environment = self._start_servers()
            update = {"redis_url": SecretStr(environment["REDIS_URL"])}
            workspace = Workspace.load(self._settings.model_copy(update=update))
            for warning in check_server(workspace.queues[Kind.EMBED].client):
                self._say(warning)
            watch = Watch(workspace, self._page)
            before = watch.counts()
            if self._plan.exit_when_done:
                watch.look()  # Work begins while Dagster is still loading.
            dagster = dagster_parts(environment, port=self._plan.port, maps_port=self._maps_port)
            self._workers = workers = worker_parts(
                self._settings, environment, workers=self._plan.workers
            )
            busy = any(not count.idle for count in watch.counts().values())
            # Without work at hand, workers would only hold up the page.
            self._start_parts(workers + dagster if busy else dagster)
            self._wait_for_page()
            if not busy and not self._stop.is_set():
                self._start_parts(workers)
            final = self._watch_over(watch)
            if self._lost:
                raise StartupError(self._lost, hint="Give both the same queue (REDIS_URL).")
            summary = self._summary
            summary.seconds = round(time.monotonic() - self._began, 1)
            summary.restarts = self._servers.restarts + self._parts.restarts
            summary.tell(final, self._layout, self._page)
            summary.count_work(before, watch)
        if self._summary.done and not (final.dead or final.problems):
            return 0, self._summary
        if self._summary.done or self._summary.blocked:
            return 1, self._summary
        return (130 if self._plan.exit_when_done else 0), self._summary

    # --- start ---------------------------------------------------------------------------
    def _catch_signals(self, stack: ExitStack) -> None:
        def stop(number: int, frame: object) -> None:
            if self._stop.is_set():
                self._hurry.set()
            self._stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            previous = signal.signal(number, stop)
            stack.callback(signal.signal, number, previous)

    def _choose_ports(self) -> None:
        plan = self._plan
        for port, option in ((plan.port, "--port"), (plan.maps_port, "--maps-port")):
            if port is not None and not port_is_free(port, HOST):
                raise StartupError(
                    f"Port {port} is taken.",
                    hint=f"Choose another, for example {option} {free_port()}.",
                )
        if plan.port == plan.maps_port:
            raise StartupError(
                f"Page and maps cannot both have port {plan.port}.",
                hint="Leave --maps-port out, or choose another.",
            )
        self._maps_port = plan.maps_port or plan.port + 1
        if self._maps_port > 65_535 or not port_is_free(self._maps_port, HOST):
            self._maps_port = free_port()

    def _take_tree(self, stack: ExitStack) -> None:
        """Holds the tree against an ``up`` that has another queue."""

        def lost(sentence: str) -> None:
            self._lost = sentence
            self._stop.set()

        queue = self._state.identity()
        if self._settings.redis_url is not None:
            queue = JobQueue(connect(self._settings), Kind.EMBED).identity()
        facts = {"page": self._page.url, "state_dir": str(self._state.path)}
        lock = TreeLock(self._layout.embeddings, queue, facts, lost)
        lock.acquire()
        stack.callback(lock.release)

    def _start_servers(self) -> dict[str, str]:
        settings, state = self._settings, self._state
        valkey = postgres = None
        if settings.redis_url is None:
            valkey = ValkeyServer(state.path / "valkey", records=state.records)
        if settings.dagster_postgres_url is None:
            postgres = PostgresServer(state.path / "postgres", records=state.records)
            if said_of_root():
                self._say(said_of_root())
        servers = [server for server in (valkey, postgres) if server is not None]
        with ThreadPoolExecutor(2) as pool:
            starts = [
                pool.submit(self._servers.add, server.name, partial(_started, server))
                for server in servers
            ]
            for start in starts:
                start.result()
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
        for server in servers:
            self._say(f"{server.name.title()} runs ({server.url}).")
        return family_environment(
            settings,
            self._layout,
            state,
            redis_url=redis_url,
            postgres_url=postgres_url,
            maps_port=self._maps_port,
        )

    def _start_parts(self, parts: list[Part]) -> None:
        for part in parts:
            self._parts.add(part.name, partial(part.start, self._state))
        names = ", ".join(part.name for part in parts)
        self._say(f"Starting {names}; logs are in {self._state.log('x').parent}.")

    def _wait_for_page(self) -> None:
        deadline = time.monotonic() + PAGE_SECONDS
        loaded = False
        while not loaded and not self._stop.wait(0.2):
            self._tick()
            self._require("webserver", "code-server")
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
            self._say(
                f"The Dagster page is {self._page.url}/asset-groups "
                f"(the corpus at a glance: {self._page.url}/assets/corpus)"
            )
            self._say(f"Maps of the clusters: http://{HOST}:{self._maps_port}/")
        elif not self._stop.is_set():
            raise StartupError(
                f"Dagster cannot load {problem}",
                hint=f"The whole traceback is in {self._state.log('webserver')}.",
            )

    def _require(self, *names: str) -> None:
        """Ends the start if a part that the page needs does not come up."""
        for name in names:
            charge = self._parts.charges[name]
            if charge.failing:
                raise StartupError(charge.trouble, hint=f"Its log is {self._state.log(name)}.")

    def _note(self, **facts: str) -> None:
        self._state.note(
            pid=os.getpid(),
            redis_url=self._redis_url,
            dagster_home=str(self._state.dagster_home),
            **facts,
        )

    # --- watching ------------------------------------------------------------------------
    def _watch_over(self, watch: Watch) -> Completion:
        """Keeps everything running; returns when it is stopped, or all is done."""
        state, said = Completion(), ""
        next_look = next_word = 0.0
        began_watching = time.monotonic()
        while not self._stop.wait(0.25):
            self._tick()
            began = time.monotonic()
            if began < next_look:
                continue
            try:
                state = watch.look() if self._plan.exit_when_done else watch.glance()
                line = state.line()
            except (RedditAssetsError, OSError) as error:
                # Redis is being restarted, a share is away: nothing to end everything for.
                line = f"Progress cannot be determined now: {str(error).rstrip('.')}"
            now = time.monotonic()
            if self._plan.exit_when_done and not state.done:
                self._summary.blocked = self._blocked(watch)
            if self._show is not None and not state.done:
                self._show(f"{line}.")
            elif line != said and (now >= next_word or state.done):
                first = now - began_watching < FIRST_SECONDS
                said, next_word = line, now + (WORD_SECONDS if first else LATER_WORD_SECONDS)
                self._say(f"{line}.")
            if self._plan.exit_when_done and (state.done or self._summary.blocked):
                break
            # A look at a large tree takes long: it must not take most of the time.
            next_look = now + max(LOOK_SECONDS, 10 * (now - began))
        return state

    def _tick(self) -> None:
        self._servers.tick()
        self._parts.tick()
        if time.monotonic() >= self._next_rotation:
            self._next_rotation = time.monotonic() + ROTATE_SECONDS
            logs = [*self._state.log("x").parent.glob("*.log"), *self._state.path.glob("*/*.log")]
            rotate(logs, self._settings.log_mb * 1_000_000)

    def _blocked(self, watch: Watch) -> str:
        """Why nothing that is left can be done; empty while something may still be."""
        counts = watch.counts()
        kinds = {kind for kind, count in counts.items() if count.unfinished}
        waited_for = [part for part in self._workers if part.kind in kinds]
        names = [part.name for part in waited_for]
        if not kinds and any(count.outbox for count in counts.values()):
            names = ["reporter"]
        charges = [self._parts.charges[name] for name in names if name in self._parts.charges]
        if not charges or any(charge.failures < LAST_FAILURE for charge in charges):
            return ""
        # Workers that were started beside this command.
        if any(counts[kind].workers for kind in kinds):
            return ""
        return " ".join(f"{c.trouble} Its log is {self._state.log(c.name)}." for c in charges)

    # --- end -----------------------------------------------------------------------------
    def _end_everything(self) -> None:
        if self._stop.is_set():
            self._say("Stopping everything.")
        killed = end_together(
            self._parts.children(),
            timeout=PARTS_SECONDS,
            again_after=AGAIN_SECONDS,
            hurry=self._hurry,
        )
        log.debug("Killed at the end: %s", killed)
        end_together(self._servers.children(), timeout=SERVERS_SECONDS, hurry=self._hurry)
        clear_leftovers(self._state.records, grace=0)


def _started(server: ValkeyServer | PostgresServer) -> Child:
    return server.start().child
