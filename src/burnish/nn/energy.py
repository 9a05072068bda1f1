"""How much energy a run takes: measured where the machine tells, else estimated from its watts."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules since it was made, and where they are known from."""

    def __init__(self, watts: float | None, powercap: Path = POWERCAP) -> None:
        """Look for counters; `watts` is the estimate to fall back on."""
        self._counters: list[Callable[[], float]] = []
        sources = []
        packages = _rapl_packages(powercap)
        if packages:
            self._counters += [_RaplCounter(package).joules for package in packages]
            sources.append("rapl")
        gpu = _nvml_joules()
        if gpu is not None:
            self._counters.append(gpu)
            sources.append("nvml")
        if not sources and watts is not None:
            self._counters.append(lambda: watts * time.monotonic())
            sources.append("watts")
        self.source = "+".join(sources) or None
        """`rapl` (processor packages), `nvml` (the GPU), `rapl+nvml`, `watts`, or None."""
        self._begin = [counter() for counter in self._counters]

    def joules(self) -> float | None:
        """Joules since the meter was made; None where nothing tells.

        To be asked at least once a minute: a processor's counter wraps around.
        """
        if not self._counters:
            return None
        now = [counter() for counter in self._counters]
        return sum(n - b for n, b in zip(now, self._begin, strict=True))


class _RaplCounter:
    """The counter of a processor package (Linux powercap: microjoules that wrap around)."""

    def __init__(self, package: Path) -> None:
        self._file = package / "energy_uj"
        self._range = int((package / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())
        self._total = 0

    def joules(self) -> float:
        now = int(self._file.read_text())
        self._total += (now - self._last) % (self._range + 1)
        self._last = now
        return self._total / 1e6


def _rapl_packages(powercap: Path) -> list[Path]:
    """The processor packages whose counters may be read; often only root may."""
    readable = []
    # intel-rapl:0:1 is a part of intel-rapl:0; AMD's processors come under intel's name too.
    for zone in sorted(powercap.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):
            if zone.name.count(":") == 1 and "package" in (zone / "name").read_text():
                int((zone / "energy_uj").read_text())
                int((zone / "max_energy_range_uj").read_text())
                readable.append(zone)
    return readable


def _nvml_joules() -> Callable[[], float] | None:
    """The counter of the GPU in use, through the driver's library; None where there is none."""
    if not torch.cuda.is_available():
        return None
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    # By its UUID: CUDA_VISIBLE_DEVICES numbers the GPUs anew.
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}".encode()

    def joules() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    failed = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle))
        or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
    )
    return None if failed else joules
