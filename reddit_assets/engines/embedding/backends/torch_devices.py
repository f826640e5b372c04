"""Which devices torch has here, and what each computes in."""

from __future__ import annotations

from typing import Any

from reddit_assets.engines.host import cpu_has_bf16
from reddit_assets.errors import BackendUnavailableError

__all__ = ["choose_devices", "precisions", "the_torch"]


def choose_devices(wanted: str = "auto") -> list[str]:
    """The devices to compute on: ``["mps"]``, ``["cuda:0", "cuda:1"]`` or ``["cpu"]``.

    Args:
        wanted: ``auto`` takes MPS, else all CUDA devices, else the processor; ``cuda`` takes all
            CUDA devices; ``cuda:1`` is one. Several are named with commas between them.

    Raises:
        BackendUnavailableError: a wanted one is not here.
    """
    torch = the_torch()
    mps = getattr(torch.backends, "mps", None)
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = {
        "mps": ["mps"] if mps is not None and mps.is_available() else [],
        "cuda": [f"cuda:{number}" for number in range(cards)],
        "cpu": ["cpu"],
    }
    if wanted == "auto":
        return next(devices for devices in here.values() if devices)
    there = [device for devices in here.values() for device in devices]
    chosen: list[str] = []
    for name in wanted.split(","):
        found = here.get(name) or [device for device in there if device == name]
        if not found:
            raise BackendUnavailableError(
                f"torch finds no {name} device on this host, only {', '.join(there)}.",
                hint="Use --device auto, or install a torch build and driver for the device.",
            )
        chosen += found
    return chosen


def precisions(device: str) -> list[str]:
    """The precisions worth using on a device (or several, with commas), fastest first."""
    torch = the_torch()
    if device.startswith("cuda"):
        # fp16 has three more bits of mantissa at the same speed; bf16 is there for overflows.
        bf16 = ["bf16"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
        return ["fp16", *bf16, "fp32"]
    if device.startswith("mps"):
        return ["fp16", "fp32"]
    return ["bf16", "fp32"] if cpu_has_bf16() else ["fp32"]


def the_torch() -> Any:
    """The library.

    Raises:
        BackendUnavailableError: it is not here, or a library of the driver's is missing.
    """
    try:
        import torch
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"The torch backend needs torch ({error}).",
            hint="Install it: pip install 'reddit-assets[torch]', or use --backend onnx.",
        ) from None
    return torch
