"""What a process that examines chunk after chunk keeps of them."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
from scale_tree import Shape, cluster_keys, make_tree

from reddit_assets.corpus import examine
from reddit_assets.corpus.scan import Scanner, ScanOptions


@pytest.mark.parametrize("deep", [False, True])
def test_a_process_without_automatic_collection_keeps_no_garbage(
    tmp_path: Path, deep: bool
) -> None:
    # Given outputs that are done, and a process as those of a large look
    shape = Shape(200)
    judge = Scanner(make_tree(tmp_path, shape, processes=1), ScanOptions(settle_seconds=0))
    judge.options = replace(judge.options, deep=deep)
    tasks = [(key, None, None) for key in cluster_keys(shape)]
    examine._examine_apart(judge, tasks)
    gc.collect()
    gc.disable()
    try:
        # If a chunk is examined
        rows, _ = examine._examine_apart(judge, tasks)
        # Then nothing of it is left but its rows.
        assert len(rows) == 20
        assert gc.collect() < 20
    finally:
        gc.enable()
