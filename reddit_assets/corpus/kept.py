"""Verdicts as bytes: what a snapshot keeps of subreddits that are not done, beside their listings.

A scan builds them four times as fast as it judges a listing. They are kept by columns, since JSON
reads long lists of numbers fastest, and only where there is nothing else to say of a subreddit.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Container

from reddit_assets.corpus.fingerprints import Stamp
from reddit_assets.corpus.snapshot_file import SnapshotLostError
from reddit_assets.corpus.verdicts import (
    ClusterStatus,
    FileStatus,
    Reason,
    ScanOptions,
    SubredditStatus,
    Verdict,
)

__all__ = ["may_differ", "pack_status", "unpack_status"]

_VERDICTS = list(Verdict)
_CODES = {verdict: code for code, verdict in enumerate(_VERDICTS)}


def pack_status(status: SubredditStatus) -> bytes:
    """As bytes: files and cluster, without orphans, problems and what was passed by."""
    start = len(status.cluster_key) + 1
    files, cluster = status.files, status.cluster
    outputs = [file.output_stamp or (-1, -1) for file in files]
    columns = [
        [file.key[start:] for file in files],
        [_CODES[file.verdict] for file in files],
        [file.stamp.size for file in files],
        [file.stamp.mtime_ns for file in files],
        [size for size, _ in outputs],
        [time for _, time in outputs],
        [file.data_version for file in files],
    ]
    said = {
        number: (file.reason, file.detail, file.empty_texts)
        for number, file in enumerate(files)
        if file.reason is not None or file.detail or file.empty_texts
    }
    of_cluster = cluster and (
        *(cluster.verdict, cluster.stamp, cluster.reason, cluster.detail),
        cluster.data_version,
    )
    text = json.dumps([columns, said, of_cluster], separators=(",", ":"))
    return zlib.compress(text.encode(), 1)


def unpack_status(cluster_key: str, packed: bytes) -> SubredditStatus:
    """From :func:`pack_status`.

    Raises:
        SnapshotLostError: these are no such bytes.
    """
    try:
        columns, said, of_cluster = json.loads(zlib.decompress(packed))
        files = [
            FileStatus(
                f"{cluster_key}/{chunk}",
                _VERDICTS[code],
                Stamp(size, time),
                Stamp(made, made_time) if made >= 0 else None,
                data_version=version,
            )
            for chunk, code, size, time, made, made_time, version in zip(*columns, strict=True)
        ]
        for place, (reason, detail, empty) in said.items():
            number = int(place)
            file = files[number]
            files[number] = FileStatus(
                *(file.key, file.verdict, file.stamp, file.output_stamp),
                None if reason is None else Reason(reason),
                detail,
                empty,
                file.data_version,
            )
        status = SubredditStatus(cluster_key, files)
        if of_cluster is not None:
            verdict, stamp, reason, detail, version = of_cluster
            status.cluster = ClusterStatus(
                Verdict(verdict),
                stamp,
                tuple(file.key for file in files),
                reason=None if reason is None else Reason(reason),
                detail=detail,
                data_version=version,
            )
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error) as error:
        raise SnapshotLostError(f"the verdicts on {cluster_key} cannot be read") from error
    return status


def may_differ(status: SubredditStatus, options: ScanOptions, dead: Container[str]) -> bool:
    """Whether kept verdicts may be others now: a file is young, or its job a dead letter."""
    if options.settle_seconds:
        now = time.time() if options.now is None else options.now
        if any(file.stamp.changed_at > now - options.settle_seconds for file in status.files):
            return True
    return bool(dead) and any(file.key in dead for file in status.files)
