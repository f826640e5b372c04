"""The parts that ``reddit-assets up`` starts: their command lines and their environment."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.host import available_cores
from reddit_assets.ingest.wanted import dump_keys
from reddit_assets.ledger.job import Kind
from reddit_assets.local.instance import location, write_workspace
from reddit_assets.local.private import socket_folder
from reddit_assets.local.processes import Child
from reddit_assets.local.state import StateDir
from reddit_assets.settings import Settings

__all__ = ["HOST", "Part", "dagster_parts", "family_environment", "worker_parts"]

HOST = "127.0.0.1"
OURS = (sys.executable, "-m", "reddit_assets.cli")


@dataclass(frozen=True)
class Part:
    """A child process of ``up``.

    Attributes:
        name: in messages and as the name of its log.
        command: its command line.
        environment: variables beside those of this process.
        kind: whose jobs it does; ``None`` if it is not a worker.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    kind: Kind | None = None

    def start(self, state: StateDir) -> Child:
        """Starts it. Raises StartupError."""
        child = Child(
            self.name,
            self.command,
            records=state.records,
            log=state.log(self.name),
            environment=self.environment,
            stop_signal=signal.SIGTERM,
        )
        child.start()
        return child


def family_environment(
    settings: Settings,
    layout: Layout,
    state: StateDir,
    *,
    redis_url: str,
    postgres_url: str,
    maps_port: int,
) -> dict[str, str]:
    """What all parts need to load the same settings and meet on the same servers."""
    return {
        **settings.environment(),
        "REDDIT_CHAINS_DIR": str(layout.chains),
        "REDDIT_EMBEDDINGS_DIR": str(layout.embeddings),
        "REDDIT_CLUSTERS_DIR": str(layout.clusters),
        "REDDIT_MODEL_DIR": str(settings.model_dir.absolute()),
        "MODEL_DIR": str(settings.model_dir.absolute()),
        "REDIS_URL": redis_url,
        "DAGSTER_POSTGRES_URL": postgres_url,
        "DAGSTER_HOME": str(state.dagster_home.absolute()),
        # The reporter beside Dagster drains the outbox; workers need not.
        "REDDIT_REPORT": "none",
        "REDDIT_MAPS_URL": settings.maps_url or f"http://{HOST}:{maps_port}",
        "PYTHONUNBUFFERED": "1",
    }


def dagster_parts(environment: Mapping[str, str], *, port: int, maps_port: int) -> list[Part]:
    """Code server, webserver, daemon, and beside them the reporter and the server of the maps.

    Runs are children of the code server: they survive webserver and daemon.

    Args:
        port: of the page.
        maps_port: of the maps.
    """
    programs, home = Path(sys.executable).parent, Path(environment["DAGSTER_HOME"])
    # Anyone who reaches the code server can run code as this account: it asks for no password.
    socket = str(socket_folder(home, "code.sock") / "code.sock")
    where = ("-w", str(write_workspace(home, socket=socket)))
    served = location()
    code_server = (
        *(sys.executable, str(programs / "dagster"), "api", "grpc"),
        *("-m", served.module, "--location-name", served.name),
        *("--socket", socket),
        # A mistake in the definitions is then shown by the page.
        "--lazy-load-user-code",
        "--use-python-environment-entry-point",
    )
    webserver = (sys.executable, str(programs / "dagster-webserver"))
    daemon = (sys.executable, str(programs / "dagster-daemon"))
    return [
        Part("code-server", code_server, environment),
        Part("webserver", (*webserver, "-h", HOST, "-p", str(port), *where), environment),
        Part("daemon", (*daemon, "run", *where), environment),
        Part("reporter", (*OURS, "report", "--sink", "instance"), environment),
        Part("maps", (*OURS, "maps", "--port", str(maps_port)), environment),
    ]


def worker_parts(settings: Settings, environment: Mapping[str, str], *, workers: int) -> list[Part]:
    """Embedding workers, one clustering worker, and one that ingests where there are dumps.

    The embedding workers share the cores; the clustering worker may use all of them, since a
    subreddit is clustered when its files are done.

    Args:
        workers: number of embedding workers.
    """
    threads = settings.threads or max(1, available_cores() // max(workers, 1))
    names = ["embed-worker"]
    if workers != 1:
        names = [f"embed-worker-{number}" for number in range(1, workers + 1)]
    parts = []
    others = {"cluster-worker": Kind.CLUSTER}
    if dump_keys(settings, Layout.from_settings(settings)):
        others["ingest-worker"] = Kind.INGEST
    for number, name in enumerate([*names, *others]):
        kind, own = others.get(name, Kind.EMBED), dict(environment)
        if name in names:
            own["REDDIT_THREADS"] = str(threads)
        if settings.metrics_port is not None:
            own["REDDIT_METRICS_PORT"] = str(settings.metrics_port + 1 + number)
        parts.append(Part(name, (*OURS, "worker", "--kind", kind.value), own, kind))
    return parts
