"""Opening an embedder: which backend, device and precision this host should use, and why."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from reddit_assets.engines.embedding.backends.base import Backend
from reddit_assets.engines.embedding.backends.devices import SeveralDevices
from reddit_assets.engines.embedding.choice import PACKAGES, Choice, make_backend
from reddit_assets.engines.embedding.conformance import Conformance, check, demand, reference_for
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.engines.embedding.ranking import ranked
from reddit_assets.engines.embedding.weights import is_bert_family
from reddit_assets.engines.host import available_cores, cpu_has_bf16
from reddit_assets.errors import (
    BackendUnavailableError,
    NonconformantError,
    RedditAssetsError,
    first_line,
)

__all__ = ["Choice", "candidates", "make_backend", "open_embedder"]

log = logging.getLogger(__name__)

CPU_RANK = (
    ("openvino", "bf16"),
    ("torch", "bf16"),
    ("openvino", "fp32"),
    ("onnx", "fp32"),
    ("torch", "fp32"),
)
"""What is tried, usually the fastest first; this host's order is measured. int8 is used only where
it is asked for."""


def open_embedder(
    spec: ModelSpec,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    max_batch_tokens: int | None = None,
    window_rows: int | None = None,
    allow_nonconformant: bool = False,
) -> Embedder:
    """Open the fastest conformant backend that the arguments and this host allow.

    Which backend is the fastest on this processor is measured at the first start (:mod:`.ranking`).
    Each candidate is loaded and checked against the reference (:mod:`.conformance`); with
    ``auto`` the next one is tried when one cannot be loaded, cannot compute or does not conform.
    What was chosen and why is in the embedder's ``reason`` and in the log.

    Args:
        spec: the model.
        backend: ``auto``, ``torch``, ``onnx`` or ``openvino``.
        device: ``auto`` (MPS, then all CUDA devices, then CPU), ``cuda`` (all of them), ``mps``,
            ``cpu``, or devices by number: ``cuda:0,cuda:1``.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        threads: cores to compute with on a CPU; ``None`` takes all that are available.
        max_batch_tokens: tokens per batch; ``None`` takes the backend's best.
        window_rows: rows tokenized ahead and sorted together; ``None`` takes the backend's.
        allow_nonconformant: open a backend although it fails the check.

    Raises:
        BackendUnavailableError: nothing that was asked for can run here.
        NonconformantError: what can run does not conform.
    """
    threads = threads or available_cores()
    refused: list[str] = []
    error: BackendUnavailableError | NonconformantError | None = None
    choices = list(candidates(spec, backend=backend, device=device, precision=precision))
    for choice in ranked(spec, choices, threads=threads):
        try:
            embedder = _open(
                spec,
                choice,
                threads=threads,
                max_batch_tokens=max_batch_tokens,
                window_rows=window_rows,
                allow_nonconformant=allow_nonconformant,
            )
        except (BackendUnavailableError, NonconformantError) as problem:
            error = problem
            refused.append(problem.message)
            continue
        embedder.reason = _reason(embedder, choice, backend, precision, refused)
        log.info("Embedding with %s", embedder.reason)
        return embedder
    if error is None:
        raise BackendUnavailableError(
            f"No backend for {spec.name} is installed here.",
            hint="Install one: pip install 'reddit-assets[onnx]' (or [openvino], [torch]).",
        )
    if len(refused) > 1:
        raise type(error)(f"No backend can embed here: {'; '.join(refused)}", hint=error.hint)
    raise error


def _open(
    spec: ModelSpec,
    choice: Choice,
    *,
    threads: int,
    max_batch_tokens: int | None,
    window_rows: int | None,
    allow_nonconformant: bool,
) -> Embedder:
    """Load a choice and let it embed the reference texts.

    Raises:
        BackendUnavailableError: it cannot be loaded, or it cannot compute.
        NonconformantError: it computes something else, and that is not allowed.
    """
    embedder: Embedder | None = None
    try:
        embedder = Embedder(
            spec,
            make_backend(spec, choice, threads=threads),
            max_batch_tokens=max_batch_tokens,
            window_rows=window_rows,
        )
        found = _checked(embedder, _exact(spec, choice, threads))
        embedder.conformance = found.describe()
        if not allow_nonconformant:
            demand(embedder, found)
    except Exception as problem:
        if embedder is not None:
            embedder.close()
        if isinstance(problem, RedditAssetsError):
            raise
        # A library's own error: a processor without an instruction, a broken driver, no memory.
        did = "loads but cannot compute" if embedder is not None else "cannot be loaded"
        raise BackendUnavailableError(
            f"{choice} {did} here: {first_line(problem)}.",
            hint="Use --backend auto, or update the library and its driver.",
        ) from problem
    return embedder


def _checked(embedder: Embedder, exact: Backend | None) -> Conformance:
    """What the check finds; of several devices each is checked by itself, and the worst counts."""
    backend = embedder.backend
    if not isinstance(backend, SeveralDevices):
        return check(embedder, exact)
    found = [check(Embedder(embedder.spec, one), exact) for one in backend.backends]
    return min(found, key=lambda one: (one.conformant, one.min_cosine))


def candidates(
    spec: ModelSpec, *, backend: str = "auto", device: str = "auto", precision: str = "auto"
) -> Iterator[Choice]:
    """What to try, fastest first. Imports torch only where a GPU may be or torch is wanted."""
    if backend in ("auto", "torch"):
        accelerator = _accelerator(device, explicit=backend == "torch")
        if accelerator is not None:
            from reddit_assets.engines.embedding.backends.torch_devices import precisions

            wanted = precisions(accelerator) if precision == "auto" else [precision]
            for one in wanted:
                yield Choice("torch", accelerator, one)
            if device != "auto":
                return
    elif device not in ("auto", "cpu"):
        raise BackendUnavailableError(
            f"The {backend} backend computes on the CPU only, not on {device}.",
            hint="Use --backend torch for GPUs, or --device cpu.",
        )
    for name, rank_precision in _cpu_rank(backend, precision):
        if backend == "auto" and not _usable(name, spec):
            continue
        if precision == "auto" and rank_precision == "bf16" and not cpu_has_bf16():
            continue
        yield Choice(name, "cpu", rank_precision)


def _cpu_rank(backend: str, precision: str) -> list[tuple[str, str]]:
    chosen = [(b, p) for b, p in CPU_RANK if backend in ("auto", b) and precision in ("auto", p)]
    if not chosen and precision != "auto":  # int8, fp16: only because they were asked for.
        chosen = [("onnx" if backend == "auto" else backend, precision)]
    return chosen


def _usable(name: str, spec: ModelSpec) -> bool:
    if any(find_spec(package) is None for package in PACKAGES[name]):
        return False
    if name == "torch":
        return spec.weights_dir is not None
    return spec.onnx_file is not None or is_bert_family(spec)


def _accelerator(device: str, *, explicit: bool) -> str | None:
    """The GPU to use, or ``None`` for the CPU."""
    if device == "cpu":
        return None
    if device == "auto":
        may_have_one = (
            any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
            or platform.system() == "Darwin"
        )
        if not explicit and not may_have_one:
            return None  # Importing torch would cost seconds to learn the same.
        if find_spec("torch") is None:
            return None
    from reddit_assets.engines.embedding.backends.torch_devices import choose_devices

    try:
        chosen = ",".join(choose_devices(device))
    except BackendUnavailableError as problem:
        if explicit or device != "auto":
            raise
        log.warning("No GPU is used: %s", problem.message)
        return None
    return None if device == "auto" and chosen == "cpu" else chosen


def _exact(spec: ModelSpec, choice: Choice, threads: int) -> Backend | None:
    """An fp32 backend to compare with, where the model has no committed reference."""
    if choice.precision == "fp32" or reference_for(spec) is not None:
        return None
    return make_backend(spec, Choice(choice.backend, choice.device, "fp32"), threads=threads)


def _reason(
    embedder: Embedder, choice: Choice, backend: str, precision: str, refused: list[str]
) -> str:
    if "auto" not in (backend, precision):
        why = "as asked for"
    elif backend == "auto" and precision == "auto":
        why = "the fastest conformant one here, as measured"
    else:
        why = f"the fastest here with {backend if precision == 'auto' else precision} as asked for"
    cosine = (embedder.conformance or {})["min_cosine"]
    text = f"{choice} ({why}; smallest cosine to fp32 {cosine:.6f})"
    return f"{text}; not used: {'; '.join(refused)}" if refused else text
