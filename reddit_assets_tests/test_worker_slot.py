"""A worker's slot and its fitness, without processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import RedditAssetsError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Claim, Kind
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.settings import Settings
from reddit_assets.worker.fitness import check_model
from reddit_assets.worker.leases import LeaseKeeper
from reddit_assets.worker.liveness import Life, Liveness
from reddit_assets.worker.slot import WorkerSlot


@pytest.fixture
def slot(tmp_path: Path) -> WorkerSlot:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", root=tmp_path)
    queue = JobQueue(connect(settings), Kind.EMBED)
    return WorkerSlot(queue, settings, Layout.of(tmp_path))


def claim(name: str, *, suspect: bool = False) -> Claim:
    return Claim(Kind.EMBED, f"as/A/{name}", name, name, suspect=suspect)


class Pipe:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, message: Claim) -> None:
        self.sent.append(message.token)


def test_jobs_that_fail_together_cost_one_rest(slot: WorkerSlot) -> None:
    assert [slot.rest() for _ in range(8)] == [1.0] * 8


def test_a_suspect_is_alone_in_the_child(slot: WorkerSlot) -> None:
    # Given a suspect and two others
    slot.facts, slot.pipe = {}, Pipe()  # type: ignore[assignment]
    for one in (claim("a"), claim("s", suspect=True), claim("b")):
        slot.hold(one, 1)
    # If the child is fed, then it gets the others first, and the suspect after them, alone
    slot.feed()
    assert slot.pipe.sent == ["a", "b"]
    slot.drop("a")
    slot.feed()
    assert slot.pipe.sent == ["a", "b"]
    slot.drop("b")
    slot.feed()
    assert slot.pipe.sent == ["a", "b", "s"]
    slot.hold(claim("c"), 1)
    slot.feed()
    assert slot.pipe.sent == ["a", "b", "s"]
    assert slot.wants() == 0


def test_a_broken_statement_of_the_model_is_no_jobs_fault(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.embeddings.mkdir()
    (layout.embeddings / ".model.json").write_text("{")
    with pytest.raises(RedditAssetsError, match="does not state a model") as raised:
        check_model(layout, {"model": "feed"})
    assert raised.value.host_fault


def test_a_child_that_hangs_while_it_loads_is_killed(
    slot: WorkerSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a child that has loaded no engine yet, holds no job, and shows no sign of life
    killed: list[bool] = []

    class Child:
        def kill(self) -> None:
            killed.append(True)

    slot.process = Child()  # type: ignore[assignment]
    slot.liveness = Liveness(os.getpid(), 60)
    monkeypatch.setattr(slot.liveness, "state", lambda: Life.STALLED)
    # If leases are kept, then it is killed
    LeaseKeeper("w", [slot], slot.settings, lambda one: {}).renew(slot)
    assert killed == [True]
