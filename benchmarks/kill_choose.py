"""Kills `seqrec choose` at seeded moments, and checks that going on chooses the same and does nothing twice.

    python benchmarks/kill_choose.py LOG --minutes 1 --kills 10 --seed 0

First the log is chosen for without a kill. Then in another folder the same command is killed (SIGKILL)
again and again, each time after a random part of what an undisturbed one would still need, and at last
left to end. Work is done twice where a file that tells of ended work is written again. The choices are
compared by name; runs that share their minutes with other programs may well try other settings.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def ended(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What tells of ended work: file -> when it was written, and its content."""
    files = [path for path in folder.glob("tried/**/*.json") if "search" not in path.name]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def taken(printed: Path) -> str:
    """Which model the command says to take."""
    found = re.search(r"Take (\S+):", printed.read_text())
    return found[1] if found else "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:

        def begin(out: Path) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "seqrec", "-q", "choose", options.log, "-o", str(out)]
            command += ["--minutes", str(options.minutes)]
            return subprocess.Popen(command, stdout=out.with_suffix(".txt").open("wb"))

        whole, out, start = Path(name) / "whole", Path(name) / "killed", time.perf_counter()
        assert begin(whole).wait() == 0, "the run without a kill failed"
        seconds = time.perf_counter() - start
        for kill in range(options.kills):
            before, process = ended(out), begin(out)
            moment = draw.uniform(0.05, 0.6) * seconds * (options.kills - kill) / options.kills
            try:
                status = process.wait(moment)
                print(f"{kill}: had ended before it was killed", flush=True)
                if status:
                    faults.append(f"{kill}: exit status {status}")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            after = ended(out)
            faults += [f"{kill}: {path} written again" for path in before if after.get(path) != before[path]]
            print(f"{kill}: killed after {moment:.1f} s, {len(after)} pieces of work had ended", flush=True)
        before = ended(out)
        if status := begin(out).wait():
            faults.append(f"the last one: exit status {status}")
        else:
            after = ended(out)
            again = [path for path in before if after.get(path) != before[path]]
            faults += [f"the last one: {path} written again" for path in again]
            chosen, undisturbed = (taken(folder.with_suffix(".txt")) for folder in (out, whole))
            if chosen != undisturbed:
                faults.append(f"chose {chosen}, without kills {undisturbed}")
            if left := [path.name for path in out.rglob("*") if ".tmp" in path.name]:
                faults.append(f"left behind: {left}")
            print(f"chosen: {chosen}; without kills {undisturbed}")
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
