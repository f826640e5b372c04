"""This host: Python, packages, control groups, numba's cache, the model and its conformance."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from reddit_assets import __version__
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.wanted import read_wanted_model
from reddit_assets.doctor.findings import Finding, Grade
from reddit_assets.engines.host import available_cores, cpu_name, user_cache
from reddit_assets.settings import Settings

__all__ = ["engine", "host", "memory_limit", "model", "packages"]

_EXTRAS = {
    "onnx": ("onnxruntime", "tokenizers"),
    "openvino": ("openvino", "tokenizers"),
    "torch": ("torch", "sentence_transformers"),
    "cluster": ("hdbscan", "numba", "sklearn", "umap", "evoc"),
    "dagster": ("dagster", "dagster_webserver", "dagster_postgres", "dagster_graphql"),
}
_DISTRIBUTIONS = ("numpy", "pyarrow", "redis", "pydantic")
_FEWEST_FILES = 1024


def packages() -> Iterator[Finding]:
    """Python, our own version, what is installed for which part."""
    versions = ", ".join(f"{name} {version(name)}" for name in _DISTRIBUTIONS)
    said = f"reddit-assets {__version__} on Python {platform.python_version()}; {versions}."
    yield Finding("python", Grade.OK, said)
    there = []
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            there.append(extra)
        elif len(missing) < len(modules):
            yield Finding(
                "packages",
                Grade.FAULT,
                f"The part {extra} lacks {', '.join(missing)}.",
                f"pip install 'reddit-assets[{extra}]'",
            )
    if there:
        yield Finding("packages", Grade.OK, f"Installed parts: {', '.join(there)}.")
    if not {"onnx", "openvino", "torch"} & set(there):
        yield Finding(
            "packages",
            Grade.WARNING,
            "No embedding backend is installed: this host cannot embed.",
            "pip install 'reddit-assets[onnx]' (or openvino, torch), unless it need not.",
        )
    yield from _dagster_versions()


def _dagster_versions() -> Iterator[Finding]:
    """Dagster's libraries are numbered 16 minor versions behind it from 1.0 (1.13 ↔ 0.29)."""
    try:
        core, postgres = version("dagster"), version("dagster-postgres")
    except PackageNotFoundError:
        return
    minor = int(core.split(".")[1])
    if postgres.split(".")[:2] != ["0", str(minor + 16)]:
        yield Finding(
            "packages",
            Grade.FAULT,
            f"dagster {core} and dagster-postgres {postgres} do not belong together.",
            "Install both from constraints.txt.",
        )


def memory_limit() -> int | None:
    """Bytes that this process's control groups allow; ``None`` if they set no limit."""
    limits = []
    for line in _lines(Path("/proc/self/cgroup")):
        folder = Path("/sys/fs/cgroup") / line.rsplit(":", 1)[-1].lstrip("/")
        for place in (folder, *folder.parents):
            limits += [int(text) for text in _lines(place / "memory.max") if text.isdecimal()]
    return min(limits, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split("\n")
    except OSError:
        return []


def host(settings: Settings) -> Iterator[Finding]:
    """Processor, memory, limits of control groups and files, numba's cache."""
    total, limit = psutil.virtual_memory().total, memory_limit()
    memory = min(total, limit or total)
    limited = " (limited by a control group)" if limit is not None and limit < total else ""
    cores = available_cores()
    yield Finding(
        "host",
        Grade.OK,
        f"{cpu_name()}; {cores} of {os.cpu_count()} cores, {memory / 1e9:.1f} GB{limited}.",
    )
    if settings.cluster_memory_mb * 1e6 > 0.9 * memory:
        yield Finding(
            "memory",
            Grade.WARNING,
            f"Clustering may take {settings.cluster_memory_mb:,} MB of {memory / 1e6:,.0f} MB.",
            f"Set REDDIT_CLUSTER_MEMORY_MB to {memory * 0.6 / 1e6:.0f} or less on this host.",
        )
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < _FEWEST_FILES:
        yield Finding(
            "open files",
            Grade.WARNING,
            f"A process may open {files} files.",
            f"Raise the limit: ulimit -n {4 * _FEWEST_FILES}, or LimitNOFILE= in its unit.",
        )
    yield from _numba_cache()


def _numba_cache() -> Iterator[Finding]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else user_cache()
    advice = "Set NUMBA_CACHE_DIR to a folder of this account that outlives the process."
    if folder is None:
        said = "This account has no cache: each worker compiles for half a minute at its start."
        yield Finding("numba cache", Grade.WARNING, said, advice)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}."
        yield Finding("numba cache", Grade.WARNING, said, advice)
    else:
        yield Finding("numba cache", Grade.OK, f"Compiled code is kept below {folder}.")


def model(settings: Settings, layout: Layout) -> Iterator[Finding]:
    """The model of this host, and the one that the tree wants."""
    from reddit_assets.engines.embedding.model import find_model

    spec = find_model(settings.model, settings.model_dir)
    wanted = read_wanted_model(layout)
    if wanted is not None and wanted.fingerprint != spec.fingerprint:
        yield Finding(
            "model",
            Grade.FAULT,
            f"This host has {spec.name} ({spec.fingerprint[:12]}); the tree wants {wanted.name} "
            f"({wanted.fingerprint[:12]}).",
            "Set REDDIT_MODEL to the wanted one; `reddit-assets model show` says which.",
        )
        return
    wants = "and the tree wants it" if wanted else "and the tree wants none yet"
    yield Finding("model", Grade.OK, f"{spec.name} ({spec.fingerprint[:12]}) is here, {wants}.")


def engine(settings: Settings) -> Iterator[Finding]:
    """Load the backend, which compares its vectors with the reference."""
    from reddit_assets.engines.embedding.model import find_model
    from reddit_assets.engines.embedding.select import open_embedder

    spec = find_model(settings.model, settings.model_dir)
    with open_embedder(
        spec,
        backend=settings.backend,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        allow_nonconformant=True,
    ) as embedder:
        facts = embedder.describe()
        found = embedder.conformance
    named = f"{facts.get('backend')} on {facts.get('device')} in {facts.get('precision')}"
    if found is None:
        said = f"{named} runs; there is no reference for this model to compare with."
        yield Finding("conformance", Grade.WARNING, said, "Compare with `reddit-assets verify`.")
    elif not found["conformant"]:
        grade = Grade.WARNING if settings.allow_nonconformant else Grade.FAULT
        said = f"{named} deviates from the reference: {_agreement(found)}."
        yield Finding("conformance", grade, said, "Choose another backend or precision.")
    else:
        said = f"{named} agrees with the fp32 reference: {_agreement(found)}."
        yield Finding("conformance", Grade.OK, said)


def _agreement(found: dict[str, object]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.6g}"
        for name, value in found.items()
        if isinstance(value, float) and "cosine" in name
    )
