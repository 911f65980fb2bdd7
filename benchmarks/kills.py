"""Kill a run of a custom task at random moments, let it continue, and compare its results with those of an undisturbed run.

    benchmarks/kills --kills 50

Every stage of the package takes part: teachers, annotation, generation, students, the model and the report. The kill is
SIGKILL to the whole process group, which nothing can catch.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIB = str(Path(__file__).resolve().parents[1] / "lib")
sys.path.insert(0, LIB)
os.environ["PYTHONPATH"] = LIB

from synthtune.custom import example
from synthtune.files import digest
from synthtune.progress import progress

SETTINGS = ["annotate.inputs=60", "generate.pairs=60", "students.steps=20"]
"""On top of the smoke profile: long enough for fifty kills to fall into every stage, over in some minutes."""


def command(task: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "synthtune.run.reproduce", "--task", str(task), "--out", str(out),
            *[f"--set={text}" for text in SETTINGS]]


def products(folder: Path) -> dict[str, str]:
    """SHA-256 of every result, and of every table and weight that the stages keep."""
    kept = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): digest(path) for path in sorted(kept)
            # These hold times; what was made says so in its own bytes.
            if path.suffix != ".json"}


def main(kills: int, seed: int) -> int:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="synthtune-kills-") as place:
        task = example.write(place)
        task.write_text(task.read_text("utf-8") + "profile: smoke\n", "utf-8")
        started = time.monotonic()
        subprocess.run(command(task, Path(place, "whole")), check=True, stdout=subprocess.DEVNULL)
        alone = time.monotonic() - started
        print(f"Let alone: {alone:.0f} s.", flush=True)
        out, done, finished, moments = Path(place, "killed"), 0, 0, []
        with progress(total=kills, desc="kill", unit="kill") as bar:
            while done < kills:
                process = subprocess.Popen(command(task, out), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                           start_new_session=True)
                # A start takes some seconds before it does anything new; a kill must sometimes come later than that.
                limit = draw.uniform(0.05, 0.4) * alone
                try:
                    process.wait(limit)
                    finished += 1
                    for path in out.rglob("*.parquet"):  # it was done: begin anew, so that there is something to kill
                        if draw.random() < 0.5:
                            path.unlink()
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    done += 1
                    moments.append(round(limit, 1))
                    bar.update(1)
        subprocess.run(command(task, out), check=True, stdout=subprocess.DEVNULL)
        whole, killed = products(Path(place, "whole")), products(out)
    differ = sorted(name for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name))
    print(f"{done} kills, {min(moments, default=0)} to {max(moments, default=0)} s after a start; {finished} runs ended before "
          f"theirs. {len(whole)} files compared byte by byte, {len(differ)} differ{': ' if differ else '.'}{', '.join(differ)}")
    return 1 if differ else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks/kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(main(given.kills, given.seed))
