"""A trainer process whose stages do what `env_id` says, without torch, to test supervising fast.

It is started, spoken to and stopped exactly as a real one is.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from shared.jobs import (
    ClipRecord,
    CollectJob,
    CollectResult,
    ComparisonRecord,
    StageStopped,
    put_artifact,
)
from shared.storage import Store, StoreFull
from shared.trainer_process import Progress, serve


def collect(
    job: CollectJob, store: Store, on_progress: Progress, should_stop: Callable[[], bool]
) -> CollectResult:
    what, _, value = job.config["env_id"].partition(":")
    print(f"the stage is to {what}")
    on_progress(0.0, {"what": what})
    if what == "noise":
        print('{"type": "result", "attempt": 1, "result": {}}')
        os.write(1, b"\xff\xfe no text\n")
        subprocess.run(["/bin/sh", "-c", "echo a child speaks; echo on both >&2"], check=True)
    elif what == "die":
        os.kill(os.getpid(), int(value))
    elif what == "exit":
        os._exit(int(value))
    elif what == "fail":
        raise {"full": StoreFull, "memory": MemoryError, "value": ValueError, "key": KeyError}[value]("oh no")
    elif what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        on_progress(0.1, {})
        time.sleep(0.2)
        on_progress(0.5, {"child": child.pid})
        time.sleep(600)
    elif what == "environment":
        on_progress(0.1, {})
        time.sleep(0.2)
        on_progress(0.9, {"names": sorted(name for name in os.environ if name.startswith("LOCKSTEP_"))})
    elif what == "slow":
        for tick in range(int(value)):
            if should_stop():
                raise StageStopped
            on_progress(tick / int(value), {"tick": tick})
            time.sleep(0.05)
    clips = [
        ClipRecord(
            npz=put_artifact(store, "clip_npz", f"{job.prefix}{number}.npz", b"npz"),
            mp4=put_artifact(store, "clip_mp4", f"{job.prefix}{number}.mp4", b"mp4"),
            steps=1,
            fps=1.0,
            judgement=[float(number)],
        )
        for number in range(2)
    ]
    return CollectResult(clips, [ComparisonRecord([0, 1], held_out=False)], {"seed": job.seed})


if __name__ == "__main__":
    serve({"collecting": collect}, {"device": "none"}, lambda seed: None)
