"""The Dagster instance of ``reddit-assets up``: its files, and what its own API says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from reddit_assets.errors import StartupError

__all__ = [
    "Location",
    "Page",
    "committed_file",
    "location",
    "write_instance",
    "write_workspace",
]


@dataclass(frozen=True)
class Location:
    """A code location: the module that Dagster loads, and its name in Dagster's records."""

    module: str = "reddit_assets.definitions"
    name: str = "reddit_assets"


def committed_file(name: str) -> Path | None:
    """``dagster.yaml`` or ``workspace.yaml``: beside the package in a checkout, else inside it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent, package / "local"):
        path = folder / name
        # A site-packages folder has no such file of ours; a checkout has pyproject.toml too.
        if path.is_file() and (folder != package.parent or (folder / "pyproject.toml").is_file()):
            return path
    return None


def location() -> Location:
    """What the committed ``workspace.yaml`` names, if there is one.

    Raises:
        StartupError: it does not load one module.
    """
    workspace = committed_file("workspace.yaml")
    if workspace is None:
        return Location()
    try:
        (entry,) = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"]
        module = entry["python_module"]
        return Location(module["module_name"], module["location_name"])
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise StartupError(
            f"{workspace} does not load one python_module with a location_name.",
            hint="`reddit-assets up` serves one code location; restore the file.",
        ) from error


def write_workspace(home: Path, **server: str | int) -> Path:
    """Writes a ``workspace.yaml`` that names a code server, and returns its path.

    Args:
        server: where it listens: ``socket``, or ``host`` and ``port``.

    Without one, webserver and daemon would each keep their own, and the daemon would start a new
    one every minute.
    """
    entry = {"grpc_server": {**server, "location_name": location().name}}
    path = home / "workspace.yaml"
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"load_from": [entry]}), encoding="utf-8")
    return path


def write_instance(home: Path, postgres_url: str | None) -> None:
    """Writes ``dagster.yaml`` of the instance: the committed one plus Postgres.

    Args:
        home: DAGSTER_HOME.
        postgres_url: of the embedded server; ``None`` leaves it to DAGSTER_POSTGRES_URL in the
            environment, so that no password is written to a file.
    """
    committed = committed_file("dagster.yaml")
    text = "" if committed is None else committed.read_text(encoding="utf-8")
    url = "{ env: DAGSTER_POSTGRES_URL }" if postgres_url is None else json.dumps(postgres_url)
    text += f"\nstorage:\n  postgres:\n    postgres_url: {url}\n"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(text, encoding="utf-8")


class Page:
    """The webserver, asked through its GraphQL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=60.0)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def answers(self) -> bool:
        """Whether the webserver is there."""
        try:
            return self._client.get("/server_info", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    def definitions(self) -> tuple[bool, str]:
        """Whether every code location is loaded, and what is wrong with one that cannot be.

        Raises:
            StartupError: the webserver does not answer.
        """
        data = self.ask(
            "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus"
            " locationOrLoadError { __typename ... on PythonError { message className } } } } } }"
        )
        entries = data["workspaceOrError"].get("locationEntries", [])
        for entry in entries:
            problem = entry["locationOrLoadError"] or {}
            if problem.get("className") == "DagsterUserCodeUnreachableError":
                return False, ""  # The code server is still starting.
            if problem.get("__typename") == "PythonError":
                return False, f"{entry['name']}: {problem['message'].strip()}"
        loaded = bool(entries) and all(
            entry["loadStatus"] == "LOADED" and entry["locationOrLoadError"] for entry in entries
        )
        return loaded, ""

    def partition_counts(self) -> dict[str, dict[str, int]]:
        """By asset (``chains``, …): how many ``partitions``, how many ``materialized``."""
        data = self.ask(
            "{ assetNodes { assetKey { path } partitionStats { numPartitions numMaterialized } } }"
        )
        counts: dict[str, dict[str, int]] = {}
        for node in data["assetNodes"]:
            stats = node["partitionStats"]
            if stats is not None:
                # Of all shards together, where they have assets of their own.
                empty = {"materialized": 0, "partitions": 0}
                found = counts.setdefault(node["assetKey"]["path"][0], empty)
                found["materialized"] += stats["numMaterialized"]
                found["partitions"] += stats["numPartitions"]
        return counts

    def materialized(self) -> dict[str, set[str]]:
        """The materialized partition keys by asset."""
        data = self.ask(
            "{ assetNodes { assetKey { path } isPartitioned assetPartitionStatuses {"
            " ... on DefaultPartitionStatuses { materializedPartitions } } } }"
        )
        found: dict[str, set[str]] = {}
        for node in data["assetNodes"]:
            if node["isPartitioned"]:
                keys = node["assetPartitionStatuses"].get("materializedPartitions") or []
                found.setdefault(node["assetKey"]["path"][0], set()).update(keys)
        return found

    def ask(self, query: str) -> dict[str, Any]:
        """Runs a GraphQL query.

        Raises:
            StartupError: the webserver does not answer it.
        """
        try:
            answer = self._client.post("/graphql", json={"query": query})
            answer.raise_for_status()
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise StartupError(
                f"Dagster's page {self.url} does not answer: {error}.",
                hint="Look at the webserver's log.",
            ) from error
        if body.get("errors"):
            raise StartupError(
                f"Dagster's page refuses a query: {body['errors'][0].get('message', '')}",
                hint="Is the installed Dagster the version of constraints.txt?",
            )
        data: dict[str, Any] = body["data"]
        return data
