"""How a trainer process sets up torch: device, threads, and every source of chance."""

import importlib.metadata
import os
import platform
import random

# cuBLAS reads this when it is loaded; without it, its sums may come out differently each time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch

from shared import memory
from shared.jobs import Metrics
from shared.settings import load_settings


def device() -> torch.device:
    """Return what to train on: what LOCKSTEP_DEVICE names, else CUDA, Apple's, the processor."""
    if (named := load_settings().device) != "auto":
        return torch.device(named)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def set_up() -> None:
    """Let torch use as many threads as LOCKSTEP_TORCH_THREADS says, and the memory that it frees again."""
    torch.set_num_threads(load_settings().torch_threads)
    memory.keep_freed()


def hello() -> Metrics:
    """Set up torch for the whole life of the process; return what the process is and can do."""
    set_up()
    torch.use_deterministic_algorithms(True)
    # Else torch fills each fresh block with NaN first, in case somebody reads what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    _warm_up()
    packages = ("torch", "numpy", "gymnasium", "ale-py", "safetensors", "av")
    return {
        "device": torch.cuda.get_device_name() if device().type == "cuda" else device().type,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def prepare(seed: int) -> None:
    """Set every generator as it is at the beginning of a job, whatever the process did before."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _warm_up() -> None:
    """Take one small gradient step: torch loads much of itself then, and no stage should wait."""
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.AdamW([weight], lr=0.0)
    (weight @ weight).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
