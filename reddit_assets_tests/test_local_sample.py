"""The generated sample."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reddit_assets.errors import StartupError
from reddit_assets.local.sample import COPY, sample_files, write_sample


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.parquet"))
    }


def test_two_samples_have_the_same_bytes(tmp_path: Path):
    # Given two empty folders, If the sample is written to both
    for name in ("one", "two"):
        assert write_sample(tmp_path / name) == 60
    # Then every byte is the same, and no temporary file is left
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_sample_has_what_the_real_data_has():
    # Given the sample
    files = list(sample_files())
    tables = {file.path.as_posix(): file.table for file in files}
    subreddits = {file.path.parent.name for file in files}
    rows = {
        name: sum(t.num_rows for p, t in tables.items() if f"/{name}/" in p) for name in subreddits
    }
    # Then it has at least 12 subreddits, 60 files, 6,000 rows
    assert len(subreddits) >= 12
    assert len(files) == 60
    assert sum(rows.values()) >= 6_000
    # and one file without rows, one tiny subreddit, names beyond ASCII
    assert [path for path, table in tables.items() if table.num_rows == 0] == [
        "sp/space/chains_chunk_4.parquet"
    ]
    assert rows["tinytown"] == 3
    assert any(not name.isascii() for name in subreddits)
    # and null, empty and unicode texts
    bodies = [body for table in tables.values() for body in table["body"].to_pylist()]
    assert None in bodies
    assert "" in bodies
    assert any("🍁" in body for body in bodies if body)
    # and what authors and moderators have taken away, in real shares, and copies of one text
    for text, share in (("[deleted]", 0.06), ("[removed]", 0.04), (COPY, 0.03)):
        assert bodies.count(text) == pytest.approx(share * len(bodies), rel=0.1)
    own = [body for body in bodies if body not in ("[deleted]", "[removed]", COPY)]
    assert len(set(own)) > 0.9 * len(own)


def test_a_second_run_leaves_existing_files_alone(tmp_path: Path):
    # Given a written sample of which one file was changed and one deleted
    write_sample(tmp_path)
    changed = tmp_path / "chains/co/Cooking/chains_chunk_0.parquet"
    pq.write_table(pq.read_table(changed).slice(0, 5), changed)
    deleted = tmp_path / "chains/ti/tinytown/chains_chunk_0.parquet"
    deleted.unlink()
    # If it is written again, Then only the missing one is
    assert write_sample(tmp_path) == 1
    assert deleted.exists()
    assert pq.read_metadata(changed).num_rows == 5


def test_it_does_not_mix_with_other_data(tmp_path: Path):
    # Given a root with chain files of its own
    other = tmp_path / "chains/as/AskReddit/chains_chunk_0.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"PAR1")
    # If the sample is to be written there, Then it refuses
    with pytest.raises(StartupError, match="holds chain files already"):
        write_sample(tmp_path)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
