"""What this host can compute with: cores really available, processor, instruction sets.

``joblib.cpu_count`` knows affinity and quotas too, but reads the root of the control groups alone:
a systemd unit's ``CPUQuota`` lies below it. And an embedding host need not have joblib.
"""

from __future__ import annotations

import math
import os
import platform
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

from reddit_assets.errors import StartupError

__all__ = [
    "available_cores",
    "cpu_flags",
    "cpu_has_bf16",
    "cpu_name",
    "keep_cache",
    "private_folder",
    "user_cache",
]


def available_cores(cgroup: Path = Path("/sys/fs/cgroup"), membership: str | None = None) -> int:
    """Cores this process may use: the smaller of its affinity and its container's quota, ≥ 1.

    Args:
        cgroup: where the control groups are mounted.
        membership: contents of ``/proc/self/cgroup``; ``None`` reads it.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Not on macOS.
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(cgroup, membership)
    return max(1, min(cores, math.ceil(quota))) if quota else max(1, cores)


def _cgroup_quota(cgroup: Path, membership: str | None) -> float | None:
    """The tightest CPU quota of this process's control groups, in cores (v2, then v1)."""
    if membership is None:
        membership = _read(Path("/proc/self/cgroup")) or ""
    groups = [line.rsplit(":", 1)[-1].strip().lstrip("/") for line in membership.splitlines()]
    quotas: list[float] = []
    for group in {"", *groups}:
        folder = cgroup / group
        while True:  # A parent's quota binds its children too.
            limit = (_read(folder / "cpu.max") or "").split()
            if len(limit) == 2 and limit[0] != "max":
                quotas.append(int(limit[0]) / int(limit[1]))
            if folder == cgroup or cgroup not in folder.parents:
                break
            folder = folder.parent
        for controller in ("cpu", "cpu,cpuacct"):
            quota = _read(cgroup / controller / group / "cpu.cfs_quota_us")
            period = _read(cgroup / controller / group / "cpu.cfs_period_us")
            if quota and period and int(quota) > 0:
                quotas.append(int(quota) / int(period))
    return min(quotas) if quotas else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux names them; empty where the system does not say."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX-512 BF16, AMX, or Arm's)."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_name() -> str:
    """The processor's name, with family and model where the name alone says little."""
    fields: dict[str, str] = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name


def user_cache() -> Path | None:
    """The account's cache folder, ``None`` where there is none that can be written."""
    try:
        home = Path.home()
    except RuntimeError:  # An account without a home, in no list of accounts.
        return None
    wanted = os.environ.get("XDG_CACHE_HOME")
    if not wanted and not home.is_dir():
        return None
    default = home / ("Library/Caches" if platform.system() == "Darwin" else ".cache")
    folder = Path(wanted or default)
    parent = next(one for one in (folder, *folder.parents) if one.exists())
    return folder if os.access(parent, os.W_OK | os.X_OK) else None


def private_folder(name: str) -> Path:
    """A folder that this account alone can write: in its cache, else among temporary files.

    Raises:
        StartupError: no folder can be written.
    """
    cache = user_cache()
    places = [] if cache is None else [cache / "reddit-assets"]
    places += [Path(place) / f"reddit-assets-{os.getuid()}" for place in _temporary()]
    for place in places:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = place.lstat()
            # In a folder that all may write to, another account may have made it before.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            folder = place / name
            folder.mkdir(mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue  # The next place may do.
    raise StartupError(
        f"No folder can be written to keep {name} in.",
        hint="Give this account a home, or set TMPDIR to a folder that it can write.",
    )


def keep_cache(variable: str, name: str) -> str | None:
    """Let a library keep its files in a private folder where the account's cache cannot be written.

    Args:
        variable: the environment variable that names the library's folder, of child processes too.
        name: of the private folder.

    Returns:
        The folder; ``None`` where the library finds one by itself.

    Raises:
        StartupError: no folder can be written.
    """
    if os.environ.get(variable) or user_cache() is not None:
        return None
    folder = os.environ[variable] = str(private_folder(name))
    return folder


def _temporary() -> list[str]:
    try:
        return [tempfile.gettempdir(), "/dev/shm"]
    except FileNotFoundError:  # Where nothing can be written.
        return ["/dev/shm"]
