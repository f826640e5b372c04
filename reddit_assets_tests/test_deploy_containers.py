"""`deploy/`: what its container files name exists, and a worker needs no rights and no own root."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.planner import queue_wanted
from reddit_assets.settings import Settings, variable_of
from reddit_assets.workspace import Workspace
from reddit_assets_tests.platform_stack import wait_for
from reddit_assets_tests.platform_worker import write_chain
from reddit_assets_tests.test_docs_commands import parse

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOY, TESTS = REPOSITORY / "deploy", Path(__file__).resolve().parent
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = [
    one
    for path in sorted((DEPLOY / "kubernetes").glob("**/*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
    if path.name != "kustomization.yaml"
]
DEPLOYMENTS = [one for one in MANIFESTS if one["kind"] == "Deployment"]
# Where the image and the units have deploy/workspace.yaml.
INSTALLED = ("/opt/reddit-assets/deploy/workspace.yaml",)
SCALERS = [one for one in MANIFESTS if one["kind"] == "ScaledObject"]


def words_of(command: str | list[object] | None) -> list[str]:
    if isinstance(command, str):
        return shlex.split(command)
    return [str(word) for word in command or []]


def commands() -> Iterator[list[str]]:
    """The command of every container of ours, and of its probes."""
    for service in COMPOSE["services"].values():
        if service["image"].startswith("reddit-assets"):
            yield words_of(service["command"])
            yield words_of(service.get("healthcheck", {}).get("test"))[1:]
    for deployment in DEPLOYMENTS:
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            yield words_of(container.get("args"))
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                yield words_of(container.get(probe, {}).get("exec", {}).get("command"))
    for unit in (DEPLOY / "systemd").glob("*.service"):
        (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), flags=re.MULTILINE)
        yield shlex.split(line.replace("%i", "embed"))


def parse_dagster(words: list[str]) -> None:
    """Reads a command of Dagster's with its own parser."""
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import create_dagster_webserver_cli

    command: Any = {
        "dagster": create_dagster_cli,
        "dagster-daemon": create_dagster_daemon_cli,
        "dagster-webserver": create_dagster_webserver_cli,
    }[words[0]]()
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    command.make_context(words[0], rest)


def test_every_command_is_read_by_its_own_parser():
    # Given each command line of the containers and units
    seen = set()
    for words in commands():
        if not words:
            continue
        program = Path(words[0]).name
        seen.add(program)
        # Then the program that it names reads it
        if program == "reddit-assets":
            parse(tuple(words[1:]))
        elif program == "python":
            compile(words[2], "probe", "exec")
        else:
            installed = str(DEPLOY / "workspace.yaml")
            parse_dagster([program, *(installed if one in INSTALLED else one for one in words[1:])])
    assert seen == {"reddit-assets", "python", "dagster", "dagster-daemon", "dagster-webserver"}


def test_every_variable_is_a_setting():
    # Given what the files set, Then each of our names is read by somebody
    named = set(re.findall(r"\b([A-Z_]+)=", (DEPLOY / "Dockerfile").read_text()))
    named |= set(COMPOSE["x-settings"]) | set(COMPOSE["x-dagster"])
    named |= set(COMPOSE["services"]["reporter"]["environment"])
    for name in ("settings.yaml", "../example/kustomization.yaml"):
        text = (DEPLOY / "kubernetes/base" / name).read_text()
        named |= set(re.findall(r"^ +(?:- )?([A-Z_]+)[:=]", text, flags=re.MULTILINE))
    ours = {one for one in named if one.startswith(("REDDIT_", "REDIS_", "DAGSTER_", "MODEL_"))}
    assert len(ours) > 8
    assert ours - {variable_of(name) for name in Settings.model_fields} == {"DAGSTER_HOME"}


def test_containers_have_no_rights_that_they_do_not_need():
    for deployment in DEPLOYMENTS:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for name, service in COMPOSE["services"].items():
        if name != "postgres":
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name


def test_no_password_has_a_default():
    text = (DEPLOY / "compose.yaml").read_text()
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        if "PASSWORD" in name or name == "CORPUS":
            assert rest.startswith(":?"), name
    empty = re.findall(r"^(\w+)=(.*)$", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE)
    assert {value for _, value in empty} == {""}
    assert {name for name, _ in empty} == set(re.findall(r"\$\{(\w+):\?", text))


def test_a_worker_has_longer_than_a_lease_to_end_in_good_order():
    for deployment in DEPLOYMENTS:
        pod = deployment["spec"]["template"]
        if pod["metadata"]["labels"].get("role") == "worker":
            assert pod["spec"]["terminationGracePeriodSeconds"] >= 900
    for name, service in COMPOSE["services"].items():
        if "worker" in name:
            grace = "15m" if name.startswith("embed") else "1h"
            assert service["stop_grace_period"] == grace, name


def test_what_goes_down_takes_no_network_along():
    # Given containers in the network of another one, Then it is the proxy's, and the port as well
    services = COMPOSE["services"]
    shared = {one.get("network_mode") for one in services.values()} - {None}
    assert shared == {"service:proxy"}
    assert services["proxy"]["ports"] == ["${PORT:-443}:443"]


def test_every_kind_of_job_has_a_worker():
    words = [words_of(one.get("command")) for one in COMPOSE["services"].values()]
    served = {line[line.index("--kind") + 1] for line in words if "--kind" in line}
    assert served == {kind.value for kind in Kind}


def test_workers_in_a_cluster_compute_with_what_they_asked_for():
    for deployment in DEPLOYMENTS:
        pod = deployment["spec"]["template"]
        if pod["metadata"]["labels"].get("role") == "worker":
            (container,) = pod["spec"]["containers"]
            (threads,) = container["env"]
            assert threads["name"] == "REDDIT_THREADS"
            assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"


JOBS = 'reddit_assets_queue_jobs{kind="KIND",state="%s"}'
CASES = {
    # lanes, delayed, computing, fetched ahead, paused: how many jobs call for workers
    "idle": ((0, 0, 0, 0, 0), 0),
    "work": ((40, 0, 0, 0, 0), 40),
    "the queue is empty, but not the workers": ((0, 0, 2, 5, 0), 7),
    "both": ((40, 0, 2, 5, 0), 47),
    "a job that waits for its next attempt, which only a worker takes up": ((0, 3, 0, 0, 0), 3),
    "a paused queue, whose work in hand is finished": ((40, 3, 2, 5, 1), 7),
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("scaler", SCALERS, ids=lambda one: one["metadata"]["name"])
def test_scaling_goes_by_what_waits_and_what_is_in_work(scaler: dict[str, Any], tmp_path: Path):
    (trigger,) = scaler["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    (kind, *_) = re.findall(r'kind="(\w+)"', query)
    names = (
        'reddit_assets_lane_jobs{kind="KIND",lane="stale"}',
        JOBS % "delayed",
        JOBS % "computing",
        JOBS % "fetched_ahead",
        'reddit_assets_paused{kind="KIND"}',
    )
    tests = []
    for values, wanted in CASES.values():
        series = zip(names, values, strict=True)
        foreign = [{"series": names[0].replace("KIND", "other"), "values": "9x9"}]
        ours = [{"series": n.replace("KIND", kind), "values": f"{v}x9"} for n, v in series]
        sample = {"expr": query, "eval_time": "5m", "exp_samples": [{"value": wanted}]}
        tests.append({"input_series": ours + foreign, "promql_expr_test": [sample]})
    # Without the reporter there is no answer, which KEDA must not take for zero.
    nothing = {"expr": query, "eval_time": "5m", "exp_samples": []}
    tests.append({"input_series": [], "promql_expr_test": [nothing]})
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    file = tmp_path / "scaler.yaml"
    file.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_overlay_can_be_built(tmp_path: Path):
    # Given a copy of the example with its files filled in
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    example = tmp_path / "kubernetes" / "example"
    (example / "secrets.env").write_text("REDIS_URL=redis://q\nDAGSTER_POSTGRES_URL=p\n")
    (example / "worker.env").write_text("REDIS_URL=redis://q\n")
    shutil.copy(DEPLOY / "nginx" / "reddit-assets.conf", example / "default.conf")
    for name in ("pem", "key", "htpasswd", "tokens"):
        (example / f"reddit-assets.{name}").write_text("x")
    built = subprocess.run(
        ["kubectl", "kustomize", str(example)], capture_output=True, text=True, check=True
    )
    # Then each has the namespace, each name that is referred to exists, and nothing is left out
    found = list(yaml.safe_load_all(built.stdout))
    assert len(found) >= len(MANIFESTS) + 3
    made = {(one["kind"], one["metadata"]["name"]) for one in found}
    for deployment in (one for one in found if one["kind"] == "Deployment"):
        text = json.dumps(deployment)
        for kind, key in (("Secret", "secretRef"), ("ConfigMap", "configMapRef")):
            for name in re.findall(rf'"{key}": {{"name": "([^"]+)"', text):
                assert (kind, name) in made
        assert "registry.example.com" in text
    for scaled in (one for one in found if one["kind"] == "ScaledObject"):
        assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in made


ROOM = """
set -e
mount --make-rprivate /
mount --bind "$ROOMS/corpus" /srv && mount --bind "$ROOMS/cache" /var/cache
mount -t tmpfs tmpfs /var/tmp
for place in $(findmnt --noheadings --list --output TARGET); do
    case "$place" in /srv | /var/cache | /var/tmp | /proc* | /sys* | /dev*) continue ;; esac
    mount -o remount,bind,ro "$place" 2>/dev/null || true
done
cd /var/cache
if touch "$ROOMS/writable" 2>/dev/null; then echo "the root is writable" >&2; exit 99; fi
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set -all "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in ("unshare", "setpriv", "findmnt")),
    reason="only root can make such a room",
)
def test_a_worker_works_without_rights_on_a_read_only_root(tmp_path: Path, valkey_url: str):
    # Given a queued file, and a room like the image's: an account without a name, and nothing to
    # write to but the trees and the cache
    rooms = tmp_path / "rooms"
    for name in ("corpus", "cache"):
        (rooms / name).mkdir(parents=True)
    workspace = Workspace.load(
        Settings(root=rooms / "corpus", redis_url=valkey_url, settle_seconds=0)
    )
    write_chain(workspace.layout, "as/Tea/c_0")
    queue_wanted(workspace.scanner(), workspace.queues)
    subprocess.run(["chown", "-R", "10001:10001", str(rooms)], check=True)
    image = dict(re.findall(r"^ +([A-Z_]+)=(\S+)", (DEPLOY / "Dockerfile").read_text(), re.M))
    environment = {
        **{name: value.replace("/reddit-assets", "") for name, value in image.items()},
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{REPOSITORY}:{TESTS}",
        "REDDIT_ROOT": "/srv",
        "REDIS_URL": valkey_url,
        "CHAOS_LOG": "/var/cache/log",
        "ROOMS": str(rooms),
        "TMPDIR": "/var/tmp",
    }
    # If a worker is started there, whose engine alone is none
    command = [sys.executable, str(TESTS / "chaos_worker.py"), "leased"]
    with subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", ROOM, "room", *command],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        output = workspace.layout.embedding_path("as/Tea/c_0")
        wait_for(lambda: output.exists() or process.poll() is not None, 60, "the output is there")
        if process.poll() is None:
            process.terminate()
        said = process.stderr.read()
    if "unshare: " in said or "mount: " in said:
        pytest.skip(f"mounts cannot be changed here: {said[:200]}")
    # Then the embedding is there, the account's own, and the worker ended in good order
    assert output.exists(), said
    assert output.stat().st_uid == 10001
    assert process.returncode == 0, said
