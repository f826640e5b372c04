"""A backend, device and precision by name, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from reddit_assets.engines.embedding.backends.base import Backend
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import BackendUnavailableError

__all__ = ["PACKAGES", "Choice", "make_backend"]

PACKAGES = {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx"), "torch": ("torch",)}


@dataclass(frozen=True)
class Choice:
    """A backend, device (or several, with commas) and precision."""

    backend: str
    device: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision} on {self.device}"


def make_backend(spec: ModelSpec, choice: Choice, *, threads: int) -> Backend:
    """Load a backend.

    Raises:
        BackendUnavailableError: it cannot run here, with the reason.
    """
    if choice.backend == "onnx":
        from reddit_assets.engines.embedding.backends.onnx_backend import OnnxBackend

        return OnnxBackend(spec, precision=choice.precision, threads=threads)
    if choice.backend == "openvino":
        from reddit_assets.engines.embedding.backends.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(spec, precision=choice.precision, threads=threads)
    if choice.backend == "torch":
        return _torch(spec, choice, threads)
    raise BackendUnavailableError(
        f"There is no backend {choice.backend!r}.", hint="Use torch, onnx, openvino or auto."
    )


def _torch(spec: ModelSpec, choice: Choice, threads: int) -> Backend:
    from reddit_assets.engines.embedding.backends.devices import SeveralDevices
    from reddit_assets.engines.embedding.backends.torch_backend import TorchBackend
    from reddit_assets.engines.embedding.backends.torch_devices import choose_devices

    devices = choose_devices(choice.device)
    opened: list[Backend] = []
    try:
        for device in devices:
            share = max(1, threads // len(devices))
            opened.append(
                TorchBackend(spec, device=device, precision=choice.precision, threads=share)
            )
    except BaseException:
        for backend in opened:
            backend.close()
        raise
    return opened[0] if len(opened) == 1 else SeveralDevices(opened)
