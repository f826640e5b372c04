"""The public list: whatever a line holds, it ends as a claim, a dead letter or a dropped copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import BadJobError
from reddit_assets.ledger.intake import key_of_job
from reddit_assets.ledger.job import Kind

LAYOUT = Layout.of(Path("/data"))


def test_the_job_of_the_earlier_system_is_understood() -> None:
    job = {
        "input_path": "/data/chains/as/AskReddit/c_0.parquet",
        "output_path": "/data/embeddings/as/AskReddit/c_0.parquet",
        "extra": 1,
    }
    assert key_of_job(LAYOUT, Kind.EMBED, job) == "as/AskReddit/c_0"
    cluster = {"subreddit_path": "/data/embeddings/as/AskReddit"}
    assert key_of_job(LAYOUT, Kind.CLUSTER, cluster) == "as/AskReddit"


def test_a_key_counts_where_roots_differ() -> None:
    job = {"input_path": "/mnt/a.parquet", "output_path": "/mnt/b.parquet", "key": "as/A/c"}
    assert key_of_job(LAYOUT, Kind.EMBED, job) == "as/A/c"


INPUT, OUTPUT = "/data/chains/as/A/c.parquet", "/data/embeddings/as/A/c.parquet"


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({}, "has no input_path"),
        ({"input_path": INPUT}, "has no output_path"),
        ({"input_path": 7, "output_path": OUTPUT}, "is int, not text"),
        ({"input_path": "chains/as/A/c.parquet", "output_path": OUTPUT}, "not an absolute path"),
        ({"input_path": "/data/chains/../x/A/c.parquet", "output_path": OUTPUT}, "outside"),
        ({"input_path": "/etc/passwd", "output_path": OUTPUT}, "outside"),
        ({"input_path": INPUT, "output_path": "/tmp/c.parquet"}, "outside"),
        ({"input_path": "/data/chainsaw/A/c.parquet", "output_path": OUTPUT}, "outside"),
        ({"input_path": INPUT, "output_path": "/data/embeddings/as/A/d.parquet"}, "as/A/d"),
        ({"input_path": "/data/chains/as/A/c.csv", "output_path": OUTPUT}, "not a .parquet"),
        ({"key": ["as/A/c"]}, "is list, not text"),
        ({"key": "../../etc/passwd"}, "'..'"),
    ],
)
def test_bad_jobs_are_refused_with_a_reason(job: dict[str, object], why: str) -> None:
    with pytest.raises(BadJobError) as caught:
        key_of_job(LAYOUT, Kind.EMBED, job)
    assert why in str(caught.value)


def test_a_job_through_a_symbolic_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "root")
    (layout.chains / "as").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (layout.chains / "as" / "A").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadJobError, match="symbolic link"):
        key_of_job(layout, Kind.EMBED, {"key": "as/A/c"})


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real" / "chains").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    layout = Layout.of(tmp_path / "link")
    assert key_of_job(layout, Kind.EMBED, {"key": "as/A/c"}) == "as/A/c"
