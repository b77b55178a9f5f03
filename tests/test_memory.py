"""What a trainer's memory does. In a process of its own, for these settings hold as long as it lives."""

import json
import platform
import subprocess
import sys

import pytest

WORK = """
import json, resource
from pathlib import Path

from shared import memory

BLOCK = 100 * 2**20  # bytes, of which every page is written to

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def use():
    b"x" * BLOCK

found = {}
for name in ("as it is", "kept"):
    if name == "kept":
        memory.keep_freed()
    use()
    before = pages()
    for _ in range(5):
        use()
    found[name] = pages() - before
most = held()
memory.give_back()
found["given back"] = (most - held()) / BLOCK
memory.begin()
found["peak"] = memory.peak_mib() * 2**20 / BLOCK
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has to be told, and can be")
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    """Of five blocks, how many pages had to be cleared; then in blocks, what was given back and is held."""
    run = subprocess.run([sys.executable, "-c", WORK], check=True, capture_output=True, text=True)
    found = json.loads(run.stdout)
    assert found["as it is"] >= 250, (
        "each is a new one, of pages of 2 MiB at most; if not, keep_freed() can go"
    )
    assert found["kept"] < 25
    assert found["given back"] > 0.9
    assert found["peak"] < 0.9
