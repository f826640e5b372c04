"""From verdicts to jobs: what a worker must know of why an output is wanted."""

from __future__ import annotations

from reddit_assets.corpus.fingerprints import EXACT, Stamp
from reddit_assets.corpus.verdicts import FileStatus, Reason, SubredditStatus, Verdict
from reddit_assets.ledger.job import Lane
from reddit_assets.ledger.planner import wanted_jobs

STAMP = Stamp(10, 20)


def test_a_job_says_why_a_worker_elsewhere_must_not_call_its_output_fresh() -> None:
    # Given outputs that are stale by the settings of the host that scans
    status = SubredditStatus("as/A")
    for name, reason in (
        ("adopted", Reason.NOT_ADOPTED),
        ("inexact", Reason.NONCONFORMANT),
        ("old", Reason.SOURCE_CHANGED),
    ):
        status.files.append(FileStatus(f"as/A/{name}", Verdict.STALE, STAMP, STAMP, reason))
    # Then the first is made whatever a worker thinks of it, the second by an exact backend alone,
    (adopted, _), (inexact, _), (old, lane) = wanted_jobs(status)
    assert (adopted.force, adopted.stamp) == (True, str(STAMP))
    assert (inexact.force, inexact.stamp) == (False, str(STAMP) + EXACT)
    # and any other as usual.
    assert (old.force, old.stamp, lane) == (False, str(STAMP), Lane.STALE)
