"""How much memory there is, how much the process holds, and how much at its peak."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import psutil
import torch


def reset_peak_memory() -> None:
    """Start measuring the peak anew, where the system can (Linux, CUDA)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        # proc(5): writing 5 resets the peak resident set size to the present one.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Peak bytes: of the CUDA device if there is one, else resident memory of the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held_memory() -> int:
    """Bytes held now, of the same memory as `peak_memory`."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process().memory_info().rss)


def free_memory() -> int:
    """Bytes that can still be taken: of the device, else of the machine and its control group."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(free + reserved)
    free = int(psutil.virtual_memory().available)
    limit, used = (_cgroup_figure(name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(0, limit - used))


def _cgroup_figure(name: str) -> int | None:
    """A figure of this process's control group (cgroups v2), None where there is no limit."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        group = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().split("::")[1]
        text = (Path("/sys/fs/cgroup") / group.lstrip("/") / name).read_text(encoding="ascii")
        return int(text)
    return None
