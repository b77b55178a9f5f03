"""How long a whole run with the oracle takes: `python -m benchmarks.demo_time [--seeds 1-5] [--set K=V]`.

From the start of the command (its environment made already) until the experiment is finished, over all of
collecting, labeling through the API, training, evaluating and filming.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.options import seeds_of
from benchmarks.whole_run import demo, seconds_until_the_end


def main() -> None:
    """Run the demo once a seed; print a line for each and the median."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default="1-5", help="1-5 or 4,7,9")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in lockstep demo")
    options = parser.parse_args()
    seconds, solved = [], 0
    print(f"{'seed':>5} {'seconds':>8}  outcome")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            database, began, status = demo(Path(folder), seed, options.set)
            seconds.append(seconds_until_the_end(database, began))
            database.close()
        solved += status == 0
        print(f"{seed:>5} {seconds[-1]:>8.1f}  {'solved' if status == 0 else 'budget spent'}", flush=True)
    print(
        json.dumps({"median_s": round(statistics.median(seconds), 2), "solved": solved, "seconds": seconds})
    )


if __name__ == "__main__":
    main()
