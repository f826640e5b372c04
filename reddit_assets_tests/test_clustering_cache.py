"""Clustering where nothing but temporary files can be written: a container, a systemd unit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reddit_assets.engines import host
from reddit_assets.errors import StartupError

pytest.importorskip("numba")

# As root, modes refuse nothing, so that a read-only file system is acted out.
READ_ONLY = """
import os, tempfile
allowed = os.environ["ALLOWED"]
access = os.access
def guarded(real):
    def call(*given, **options):
        path = str(options.get("dir") or (given[0] if given else allowed))
        if not os.path.isdir(path) or real is file:
            if not path.startswith(allowed):
                raise OSError(30, "Read-only file system", path)
        return real(*given, **options)
    return call
file = tempfile.TemporaryFile
os.makedirs, os.mkdir = guarded(os.makedirs), guarded(os.mkdir)
tempfile.TemporaryFile = guarded(file)
os.access = lambda path, mode, **options: access(path, mode, **options) and (
    not mode & os.W_OK or str(path).startswith(allowed))
tempfile.tempdir = allowed
import numpy as np
from reddit_assets.engines.clustering.canonical import row_hashes
row_hashes(np.zeros((2, 4), np.float32))
import reddit_assets.engines.clustering.clusterer
from reddit_assets.engines.clustering.map import map_png
x = np.arange(300, dtype=np.float32)
assert map_png("Cooking", x, x, np.zeros(300, np.int32), [])
print(os.environ["NUMBA_CACHE_DIR"])
"""


def test_clustering_finds_a_cache_that_can_be_written(tmp_path: Path) -> None:
    # Given an account without a home, and packages that cannot be written to
    environment = {
        **{name: value for name, value in os.environ.items() if "CACHE" not in name},
        "HOME": "/nonexistent",
        "ALLOWED": str(tmp_path),
    }
    # If compiled code is wanted, twice
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # Then it is kept among temporary files, in one folder that is this account's alone
        assert done.stdout.strip() == str(tmp_path / f"reddit-assets-{os.getuid()}" / "numba")
    folder = tmp_path / f"reddit-assets-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert list(folder.rglob("*.nbi"))


def test_a_cache_of_another_account_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a link where the folder would be, as another account can make one
    target = tmp_path / "theirs"
    target.mkdir()
    (tmp_path / f"reddit-assets-{os.getuid()}").symlink_to(target)
    monkeypatch.setattr(host, "user_cache", lambda: None)
    monkeypatch.setattr(host, "_temporary", lambda: [str(tmp_path)])
    # If a folder is wanted, then it is not followed, and the sentence says what to do
    with pytest.raises(StartupError, match="numba") as caught:
        host.private_folder("numba")
    assert "TMPDIR" in caught.value.hint
    assert not list(target.iterdir())


def test_an_accounts_own_cache_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert host.user_cache() is not None
    assert host.private_folder("rates").is_relative_to(tmp_path)
    monkeypatch.setenv("HOME", "/nonexistent")
    assert host.user_cache() is None
