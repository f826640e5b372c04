"""The short version of `benchmarks/scale_queue.py`."""

from __future__ import annotations

from benchmarks.scale_queue import crowd, million


def test_a_crowd_of_workers_loses_nothing_and_does_nothing_twice(valkey_url: str) -> None:
    # It asserts that itself, with workers that vanish.
    assert crowd(valkey_url, 40, 1_000, 2)["jobs"] == 1_000


def test_a_long_queue_is_counted_reaped_and_cleared(valkey_url: str) -> None:
    found = million(valkey_url, 5_000)
    assert found["bytes of Redis per entry"] < 1_500
    assert found["entries"] == 5_000
