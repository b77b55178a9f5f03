"""How much memory this process has held at most since it was last asked to begin counting."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

METRIC = "system/peak_memory_mib"
_PROCESS = Path("/proc/self")


def begin() -> None:
    """Count from now on. Only Linux can; elsewhere the peak is that of the process's whole life."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the peak of the resident memory in MiB; of the process alone, without the GPU's."""
    # Linux's own figure: getrusage's would count what the parent held when it started this process.
    with suppress(OSError, ValueError, StopIteration):
        lines = (_PROCESS / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024
