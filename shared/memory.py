"""The memory of this process: the most it has held since counting began, and that it keeps what it frees."""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

METRIC = "system/peak_memory_mib"
_PROCESS = Path("/proc/self")
_KEPT = 256 * 2**20  # bytes of a block; larger ones are few, and would leave large holes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed() -> None:
    """Let this process use again what it frees, until `give_back`. Only glibc has to be told.

    Else the system takes back every block above 32 MiB, which what a layer makes of a minibatch often is, and
    clears each of its pages when the next one is asked for: a quarter of the time of training a reward model.
    """
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back() -> None:
    """Give the system what this process keeps and does not use. Only glibc can."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def begin() -> None:
    """Count from now on. Only Linux can; elsewhere the peak is that of the process's whole life."""
    give_back()
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
