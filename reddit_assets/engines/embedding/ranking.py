"""Which backend is the fastest on this processor: measured once, briefly, and remembered.

Precisions are measured as well: bfloat16 in hardware may be twice as fast as fp32 (AMD Zen 4, or
Intel with AMX) or half as fast (Intel with AVX-512 BF16, but without AMX).

Each backend is measured in a process of its own, so that what it loads does not stay in the worker,
and a library that kills its process (an instruction that the processor lacks) kills no worker. The
rates are kept per host, processor, model and versions in the account's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from reddit_assets.engines.embedding.choice import PACKAGES, Choice, make_backend
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.reference import golden
from reddit_assets.engines.host import cpu_flags, cpu_name, private_folder
from reddit_assets.errors import RedditAssetsError

__all__ = ["measured_rate", "ranked"]

log = logging.getLogger(__name__)

SECONDS = 1.0
"""Measuring time of each backend, beside loading it."""
PATIENCE = 120.0
"""Seconds after which a backend that has not answered is ranked last."""

_known: dict[str, dict[str, float]] = {}
"""Rates by :func:`_mark`, for hosts on which nothing can be kept."""


def ranked(
    spec: ModelSpec,
    choices: Sequence[Choice],
    *,
    threads: int,
    measure: Callable[[ModelSpec, Choice, int], float | None] | None = None,
) -> list[Choice]:
    """The choices, those on the processor fastest first.

    GPUs stay in front, and beside them nothing is measured. What cannot be measured comes last: it
    is tried only if all others fail.

    Args:
        choices: what can be tried, usually the fastest first.
        threads: cores to compute with.
        measure: gives tokens per second, ``None`` for what fails; :func:`measured_rate` if not
            given.
    """
    if len(choices) < 2 or any(choice.device != "cpu" for choice in choices):
        return list(choices)
    rates = _rates(spec, choices, threads, measure or measured_rate)
    return sorted(choices, key=lambda choice: -rates.get(str(choice), 0.0))


def _rates(
    spec: ModelSpec,
    choices: Sequence[Choice],
    threads: int,
    measure: Callable[[ModelSpec, Choice, int], float | None],
) -> dict[str, float]:
    """Tokens per second by choice, those that failed left out; measured if not known."""
    mark = _mark(spec, choices, threads)
    path = _file(mark)
    known = _known.get(mark) or _read(path)
    if known:
        return known
    names = ", ".join(map(str, choices))
    log.info("Measuring which backend is the fastest on this processor: %s", names)
    rates = {str(choice): measure(spec, choice, threads) for choice in choices}
    found = {name: round(rate, 1) for name, rate in rates.items() if rate}
    log.info("Measured tokens per second: %s", found)
    if len(found) == len(choices):  # A failure may pass: the next start looks again.
        _known[mark] = found
        _write(path, found)
    return found


def _mark(spec: ModelSpec, choices: Sequence[Choice], threads: int) -> str:
    """A name for all that a rate depends on."""
    packages = sorted({package for choice in choices for package in PACKAGES[choice.backend]})
    facts = {
        "processor": [cpu_name(), *sorted(cpu_flags())],
        "threads": threads,
        "model": spec.fingerprint,
        "versions": {package: _version(package) for package in ("reddit-assets", *packages)},
        "choices": sorted(map(str, choices)),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _file(mark: str) -> Path | None:
    try:
        return private_folder("rates") / f"{mark}.json"
    except RedditAssetsError:
        return None


def _read(path: Path | None) -> dict[str, float]:
    try:
        found = json.loads(path.read_text()) if path is not None else {}
        return {str(name): float(rate) for name, rate in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(path: Path | None, rates: dict[str, float]) -> None:
    if path is None:
        return
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(rates))
        os.replace(temporary, path)
    except OSError as error:
        log.info("Measured rates cannot be kept in %s: %s", path.parent, error)


def measured_rate(spec: ModelSpec, choice: Choice, threads: int) -> float | None:
    """Tokens per second of a backend on the reference texts, in a process of its own.

    Seconds are the processor's, shared by the threads: what a host does that does nothing else.

    Returns:
        ``None`` if it fails there, or does not answer.
    """
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command,
            input=pickle.dumps((spec, choice, threads)),
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        return float(done.stdout.split()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        log.info("%s cannot be measured here: %s", choice, error)
        return None


def _measure(spec: ModelSpec, choice: Choice, threads: int) -> float:
    texts = golden().texts
    with Embedder(spec, make_backend(spec, choice, threads=threads)) as embedder:
        window = embedder.window(texts)
        embedder.encode_tokens(window.tokens)
        best = float("inf")
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            # Processor time: at the first start other programs often start as well.
            began = time.process_time()
            embedder.encode_tokens(window.tokens)
            best = min(best, time.process_time() - began)
    return float(window.tokens.cu_seqlens[-1]) * threads / best


if __name__ == "__main__":
    print(_measure(*pickle.loads(sys.stdin.buffer.read())))
