"""The command line: errors, secrets, help, and the commands that need only a queue."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reddit_assets import __version__
from reddit_assets.cli.app import run
from reddit_assets.corpus.buckets import Buckets, state_buckets
from reddit_assets.corpus.layout import Layout
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import Failure
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import PUBLIC_LISTS
from reddit_assets.ledger.job import Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings, load_settings
from reddit_assets_tests.factories import claim_jobs


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> Path:
    """A root with three settled chain files of two subreddits, and the queue's address."""
    for key in ("as/AskReddit/c_0", "as/AskReddit/c_1", "bo/books/c_0"):
        path = Layout.of(tmp_path).chain_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"body": ["one", "two"]}), path)
    monkeypatch.setenv("REDDIT_ROOT", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("REDDIT_SETTLE_SECONDS", "0")
    return tmp_path


def queue_of(kind: Kind) -> JobQueue:
    return JobQueue(connect(load_settings()), kind)


def bury(key: str) -> None:
    """Makes the claimed job of ``key`` a dead letter."""
    queue = queue_of(Kind.EMBED)
    for claim in claim_jobs(queue, "tester", 10, 60.0) or []:
        if claim.key == key:
            failure = Failure("The file is torn.", "Write it again.", "BadFileError", True)
            assert queue.fail(claim, failure, max_attempts=3, retry_seconds=1.0) == "dead"
        else:
            queue.release([claim])


def test_an_error_is_one_line_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    # Given a root without chains/
    # If a scan is to start there
    status = run(["scan", "--root", str(tmp_path), "--dry-run"])
    # Then one line says what and what to do, and the status is 1
    output = capsys.readouterr()
    assert status == 1
    assert output.out == ""
    assert f"There is no folder {tmp_path}/chains." in output.err
    assert "Set REDDIT_ROOT" in output.err
    assert output.err.count("\n") == 1


def test_a_usage_error_is_status_two(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given a kind of job that does not exist, Then usage is shown and the status is 2
    assert run(["worker", "--kind", "embedd"]) == 2
    assert "must be embed, cluster, ingest or any" in capsys.readouterr().err
    assert run(["dead", "retry"]) == 2
    assert "Name the keys, or say --all" in capsys.readouterr().err


def test_help_and_version_load_no_heavy_library():
    # Given a fresh interpreter, If it prints the help
    program = (
        "import sys\n"
        "from reddit_assets.cli.app import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'torch', 'dagster', 'onnxruntime', 'pyarrow', 'numpy', 'redis', 'numba'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    # Then no heavy library was imported, and the help ends with examples
    assert output.splitlines()[-1] == "[]"
    assert "Examples:" in output
    assert output.index("Commands:") < output.index("reddit-assets dead list")
    assert run(["--version"]) == 0
    assert __version__ == "0.2.0"


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]):
    # Given all commands that the help lists
    run(["--help"])
    listing = capsys.readouterr().out.split("Commands:")[1].split("Examples:")[0]
    names = [line.split()[0] for line in listing.splitlines() if line.strip()]
    names = [name for name in names if not name.startswith("-")]
    assert {"up", "scan", "worker", "dead", "model", "sample", "export-onnx"} <= set(names)
    # If each one's help is asked for, Then it ends with an example
    for name in names:
        assert run([name, "--help"]) == 0
        assert f"reddit-assets {name}" in capsys.readouterr().out.split("Example")[-1], name


def test_settings_name_variable_and_value_but_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Given a queue's address with a password
    monkeypatch.setenv("REDIS_URL", "redis://worker:hunter2@queue.internal:6379/0")
    # If all settings are printed, as text and as JSON
    assert run(["settings"]) == 0
    text = capsys.readouterr().out
    assert run(["settings", "--json"]) == 0
    raw = capsys.readouterr().out
    # Then every setting is there, and the password is not
    found = {item["name"]: item for item in json.loads(raw)}
    assert set(found) == set(Settings.model_fields)
    assert found["redis_url"]["variable"] == "REDIS_URL"
    assert found["redis_url"]["value"] == "(set, hidden)"
    assert "hunter2" not in text + raw


def test_scan_queues_once_and_a_dry_run_nothing(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given three missing files, If a dry run looks at them
    assert run(["scan", "--dry-run", "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    # Then it counts jobs and rows, and queues nothing
    assert (dry["embed"]["queued"], dry["rows"], dry["dry_run"]) == (3, 6, True)
    assert queue_of(Kind.EMBED).counts().queued == 0
    # If they are scanned twice, Then they are queued once, in the earlier system's format
    assert run(["scan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embed"]["queued"] == 3
    assert run(["scan"]) == 0
    assert "3 are queued or in work already" in capsys.readouterr().out
    # and another dry run counts them as such.
    assert run(["scan", "--dry-run", "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert (dry["embed"]["queued"], dry["embed"]["already"], dry["rows"]) == (0, 3, 0)
    payloads = queue_of(Kind.EMBED).client.lrange("phase4_todo_queue", 0, -1)
    assert len(payloads) == 3
    assert json.loads(payloads[0])["input_path"] == str(root / "chains/as/AskReddit/c_0.parquet")


def test_scan_waits_for_files_that_were_just_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Given files that were copied a second ago
    monkeypatch.setenv("REDDIT_SETTLE_SECONDS", "2")
    for path in root.rglob("c_*.parquet"):
        os.utime(path)
    # If a dry run, or one that shall not wait, looks at them, Then it says what to do
    for flags in (["--dry-run"], ["--no-wait"]):
        assert run(["scan", *flags]) == 0
        said = capsys.readouterr().out
        assert (
            "3 files were written less than 2 s ago and are left out: run it again in 2 s" in said
        )
        assert "REDDIT_SETTLE_SECONDS=0" in said
        assert "everything is fresh" not in said
    assert queue_of(Kind.EMBED).counts().queued == 0
    # If an ordinary one does, Then it says that it waits, and queues them
    older = root / "chains/bo/books/c_0.parquet"
    os.utime(older, (1e9, 1e9))
    assert run(["scan", "--json"]) == 0
    output = capsys.readouterr()
    assert "2 files were written less than 2 s ago: waiting" in output.err
    report = json.loads(output.out)
    assert (report["embed"]["queued"], report["embed"]["already"]) == (3, 0)
    assert queue_of(Kind.EMBED).counts().queued == 3


def test_queue_clear_forgets_what_waits(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Given jobs of ours, one in work, one dead, and lines that the earlier system left
    run(["scan"])
    bury("bo/books/c_0")
    queue = queue_of(Kind.EMBED)
    (claim,) = claim_jobs(queue, "tester", 1, 60.0)
    for number in range(2_500):
        line = {"input_path": f"/Volumes/x/{number}.parquet", "output_path": f"/y/{number}.parquet"}
        queue.client.rpush(PUBLIC_LISTS[Kind.EMBED], json.dumps(line))
    capsys.readouterr()
    # If it is not confirmed, Then all stays
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(["queue", "clear"]) == 1
    assert queue.counts().public == 2_501
    # If the other kind is cleared, Then these stay as well
    assert run(["queue", "clear", "--kind", "cluster", "--yes"]) == 0
    assert queue.counts().public == 2_501
    # If they are cleared, Then only what is in work and the dead letters stay
    assert run(["queue", "clear", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "Forgotten: 2,501 lines of the public lists, 1 jobs of the ledger." in said
    assert "1 dead letters stay" in said
    counts = queue.counts()
    assert (counts.public, counts.queued, counts.leased, counts.dead) == (0, 0, 1, 1)
    assert claim.key
    # and the next scan queues what is missing on disk
    assert run(["scan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embed"]["queued"] == 1


def test_export_onnx_takes_the_earlier_flags(
    tmp_path: Path, minilm: ModelSpec, capsys: pytest.CaptureFixture[str]
):
    # Given the flags of the earlier system, If the model is exported with them
    folder = tmp_path / "minilm"
    assert run(["export-onnx", "-m", minilm.name, "-o", str(folder), "--quantize"]) == 0
    # Then both models are there, and the int8 one computes with the same inputs
    import onnxruntime

    sizes = {}
    for name in ("model.onnx", "model_quantized.onnx"):
        session = onnxruntime.InferenceSession(folder / name)
        assert {"input_ids", "attention_mask"} <= {entry.name for entry in session.get_inputs()}
        sizes[name] = (folder / name).stat().st_size
    assert sizes["model_quantized.onnx"] < 0.7 * sizes["model.onnx"]
    assert "for other programs" in capsys.readouterr().out


def test_scan_obeys_subreddits(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given two subreddits, If one is excluded, Then only the other is queued
    assert run(["scan", "--subreddits", "!books", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embed"]["queued"] == 2


def test_a_misspelt_subreddit_is_a_question(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given a name that is nearly one, If it is wanted, Then the right one is offered
    for command in (["scan", "--dry-run"], ["cluster"]):
        assert run([*command, "--subreddits", "Bokos,Ask*"]) == 1
        assert "Did you mean books?" in capsys.readouterr().err
    # and a pattern may match nothing
    assert run(["scan", "--dry-run", "--subreddits", "Zzz*"]) == 0


def test_a_dry_run_does_not_count_what_was_given_up(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given three files, one of them a dead letter
    run(["scan"])
    bury("bo/books/c_0")
    queue_of(Kind.EMBED).clear()
    capsys.readouterr()
    # If a dry run is made, Then two would be queued, and one is said to be given up
    assert run(["scan", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 embedding jobs and" in said
    assert "1 not queued: dead letters" in said


def test_a_dry_run_needs_no_queue(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Given no REDIS_URL, If a dry run is made, Then it works, and a real one says what is missing
    monkeypatch.delenv("REDIS_URL")
    assert run(["scan", "--dry-run"]) == 0
    assert "6 rows: about 0 s with one worker" in capsys.readouterr().out
    assert run(["scan"]) == 1
    assert "no `reddit-assets up` runs for" in capsys.readouterr().err


def test_dead_letters_are_listed_shown_retried_and_purged(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    # Given a dead letter
    run(["scan"])
    bury("bo/books/c_0")
    capsys.readouterr()
    # If it is listed and shown, Then key, reason and what to do are there
    assert run(["dead", "list"]) == 0
    assert "embed bo/books/c_0: The file is torn. (attempts 1" in capsys.readouterr().out
    assert run(["dead", "show", "bo/books/c_0"]) == 0
    shown = capsys.readouterr().out
    assert "Write it again." in shown
    assert "input_path" in shown
    # If a key is not among them, Then that is said
    assert run(["dead", "retry", "bo/books/c_9"]) == 1
    assert "Not among the dead letters: bo/books/c_9." in capsys.readouterr().err
    # If it is retried, Then it is queued again
    assert run(["dead", "retry", "bo/books/c_0"]) == 0
    assert queue_of(Kind.EMBED).dead_keys() == set()
    assert queue_of(Kind.EMBED).counts().queued == 3
    # If it dies again and is purged, Then it is forgotten, and the next scan queues it
    bury("bo/books/c_0")
    assert run(["dead", "purge", "--all"]) == 0
    assert queue_of(Kind.EMBED).counts().queued == 2
    run(["scan"])
    assert queue_of(Kind.EMBED).counts().queued == 3


def test_pause_holds_the_kinds_that_are_named(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given queued jobs, If embedding is paused
    run(["scan"])
    assert run(["pause", "--kind", "embed"]) == 0
    # Then nothing is claimed there, and the queue says so
    assert claim_jobs(queue_of(Kind.EMBED), "tester", 1, 10.0) is None
    assert claim_jobs(queue_of(Kind.CLUSTER), "tester", 1, 10.0) == []
    capsys.readouterr()
    assert run(["queue", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["embed"]["paused"], counts["cluster"]["paused"]) == (True, False)
    assert counts["embed"]["queued"] == 3
    # If it is resumed, Then claiming goes on
    assert run(["resume"]) == 0
    assert len(claim_jobs(queue_of(Kind.EMBED), "tester", 1, 10.0) or []) == 1


def test_model_show_and_set(root: Path, capsys: pytest.CaptureFixture[str]):
    # Given a tree without a stated model
    assert run(["model", "show"]) == 0
    assert "wants no model yet" in capsys.readouterr().out
    # If one is set that does not exist, Then the error says how to get one
    assert run(["model", "set", str(root / "nowhere")]) == 1
    assert capsys.readouterr().err.strip()
    # If one is set that exists, Then it is the wanted one
    assert run(["model", "set", "all-MiniLM-L6-v2"]) == 0
    capsys.readouterr()
    assert run(["model", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dimension"], shown["max_tokens"], shown["pooling"]) == (384, 256, "mean")


def test_without_redis_a_command_names_the_host_only(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    # Given an address with a password where nobody listens
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    # If the queue is asked for, Then the sentence names host and port, not the password
    assert run(["queue"]) == 1
    error = capsys.readouterr().err
    assert "Redis at 127.0.0.1:1 cannot be reached" in error
    assert "hunter2" not in error


def test_where_names_the_assets_of_a_file_and_of_a_subreddit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.of(tmp_path)
    chain = layout.chain_path("as/Tea Time/c_0")
    chain.parent.mkdir(parents=True)
    chain.touch()
    where = ["where", "--root", str(tmp_path), "--dagster-url", "http://page:3000"]
    assert run([*where, "as/Tea Time/c_0"]) == 0
    page = "http://page:3000/assets/embeddings?view=partitions&partition=as%2FTea%20Time%2Fc_0"
    assert page in capsys.readouterr().out
    state_buckets(layout, Buckets.for_files(1))
    bucket = Buckets.for_files(1).of("as/Tea Time")
    for name, assets in ((str(chain), 3), ("Tea Time", 1)):
        assert run([*where, name]) == 0
        found = capsys.readouterr().out
        assert found.count(f"/{bucket}?view=partitions&partition=as%2FTea%20Time") == assets
    assert run([*where, "Tee Time"]) == 1
    assert "Did you mean Tea Time?" in capsys.readouterr().err
