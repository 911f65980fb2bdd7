"""The whole study in small, with the real notebooks, models and data: once, once more, and killed twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY
from synthtune.conditions import CONDITIONS, FULL, HARD, PROMPTED
from synthtune.files import read_costs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PLAN = {**TINY, "tasks": ["tweets"], "budgets": [32], "jobs": 2, "figures.resamples": 100}
NOTEBOOKS = [
    "tweets-32-01_teacher",
    "tweets-32-02_annotate",
    "tweets-32-03_generate",
    "tweets-04_students",
    "05_figures",
]


def start(folder, *more):
    changes = [f"{name}={json.dumps(value)}" for name, value in {**PLAN, "run_dir": str(folder)}.items()]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "synthtune.run.reproduce",
            "--profile",
            "smoke",
            *[f"--set={text}" for text in changes],
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "lib")},
    )


def run(folder):
    process = start(folder)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted, and what the run said."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def test_a_run_leaves_everything_it_promises(whole):
    folder, said = whole
    assert "[5/5] 05_figures: done in" in said and "report.html" in said
    for name in NOTEBOOKS:
        cells = json.loads((folder / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code" and cell["source"]]
        assert all(cell["execution_count"] for cell in code) and any(cell["outputs"] for cell in code)
    for name in (
        "teacher.parquet",
        "annotated.parquet",
        "annotation.json",
        "generated.parquet",
        "generation.json",
    ):
        assert (folder / "tweets/budget-32" / name).stat().st_size > 0
    figures = {path.name for path in (folder / "figures").iterdir()}
    # Only tweets were run, so there is nothing for the two figures about NLG.
    for number in (1, 2, 4, 6, 7):
        assert {f"figure_{number}.{kind}" for kind in ("pdf", "svg", "png", "csv")} <= figures
    assert {"table_1.csv", "table_1.md", "table_1.tex", "claims.md", "report.html"} <= figures
    results = pd.read_parquet(folder / "tweets/results.parquet")
    assert set(results["condition"]) == {*CONDITIONS, HARD, FULL} - {PROMPTED}
    minutes = pd.DataFrame(read_costs(folder))
    assert sorted(minutes["notebook"]) == [
        "01_teacher",
        "02_annotate",
        "03_generate",
        "04_students",
        "05_figures",
    ]
    assert (minutes["peak_rss_gib"] < 8).all()


def test_a_second_run_has_nothing_to_do(whole):
    folder, _ = whole
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name[0] != "."
    }
    said = run(folder)
    assert "Nothing to do: everything is up to date." in said and "report.html" in said
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_killed_twice_ends_with_the_same_numbers(whole, tmp_path):
    folder, reference = whole[0], tmp_path / "reference"
    shutil.copytree(folder, reference)
    budget = folder / "tweets" / "budget-32"
    # All that came after the teacher.
    for path in [*budget.glob("annotat*"), *budget.glob("generat*"), *folder.glob("tweets/results*"), *folder.glob("figures/*"),
                 *(folder / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS[1:])]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "tweets" / "cells", ignore_errors=True)
    moments = [lambda: any(budget.glob("annotated*")) or any(budget.glob("generated*")),  # annotating and generating
               lambda: len(list(folder.glob("tweets/cells/*.parquet"))) >= 2]  # among the students
    for moment in moments:
        process = start(folder)
        while not moment():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (folder / "tweets/results.parquet").exists()
    teacher, cells = budget / "teacher.parquet", sorted(folder.glob("tweets/cells/*.parquet"))
    kept = {path: path.stat().st_mtime_ns for path in [teacher, *cells]}
    said = run(folder)
    assert "of an earlier run are reused" in said
    assert kept == {path: path.stat().st_mtime_ns for path in kept}

    timed = ["train_seconds", "answer_seconds"]
    ended, wanted = (pd.read_parquet(each / "tweets/results.parquet").drop(columns=timed) for each in (folder, reference))
    pd.testing.assert_frame_equal(ended, wanted)
    for name in ("annotated.parquet", "generated.parquet"):
        assert (budget / name).read_bytes() == (reference / "tweets/budget-32" / name).read_bytes()
    for name in ("table_1.csv", "figure_2.csv", "figure_4.csv", "figure_6.csv", "claims.csv"):
        assert (folder / "figures" / name).read_text() == (reference / "figures" / name).read_text()
