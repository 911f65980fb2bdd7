"""The graph of notebooks on a SLURM cluster, through Snakemake's own executor.

`./run_all.sh --executor slurm` runs on a machine that can submit jobs; every notebook becomes one job, asking for what
the planner says its stage needs. The folder of the run, the environment and the cache must be seen by all machines.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthtune.errors import SettingsError
from synthtune.number_format import BYTES

if TYPE_CHECKING:
    import pandas as pd

    from synthtune.progress import Screen
    from synthtune.settings import Settings

# Which rule of the workflow does a stage of the plan.
RULE_OF = {
    "fine-tune, annotate": "teacher",
    "fine-tune, generate": "teacher",
    "evaluate": "teacher",
    "annotate": "annotate",
    "generate": "generate",
    "students, labels": "students",
    "students, text": "students",
}

# Models that a notebook holds at once: the pretrained teacher and those fine-tuned from it. On a GPU they take turns, and
# wait in the machine's memory.
COPIES = {"teacher": 2, "annotate": 2, "generate": 3, "students": 0}

# Asked for besides what is planned: starting a notebook on a cold disk, and processes that each read the models again.
MINUTES = 15
# Asked for besides the models, for the notebook: Python, PyTorch with CUDA, data, and what the planner leaves out.
MEGABYTES = 6000
# The same for each process that the notebook starts, which shares the libraries' files with it.
MEGABYTES_MORE = 3000
# What the notebook that draws asks for: it holds no model.
FIGURES = {"runtime": 30, "mem_mb": 3000, "cpus_per_task": 1}

# Jobs that may wait in the queue at once, unless `--jobs` says otherwise.
SIDE_BY_SIDE = 500

POLL_SECONDS = 1

# Between two looks at the queue, which many share.
QUEUE_SECONDS = 20

# Reasons for waiting that pass by themselves, in SLURM's words.
USUAL = {"None", "Priority", "Resources", "BeginTime", "Dependency", "Cleaning", "Prolog"}


def resources(settings: Settings) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """What each job asks for: rule → task → budget → Snakemake's names of resources.

    A rule that is for all tasks, or all budgets, has "" there. `runtime` in minutes is the plan's hours for that budget times
    `cluster.hours_factor` and some to start, `mem_mb` the memory of the processor, `gpu` the GPUs, none where the plan's kind of
    GPU is "cpu". `cluster.resources` replaces any of them, by rule.
    """
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
        "figures": {"": {"": {**FIGURES, **settings.cluster.resources.get("figures", {})}}}}
    for task in settings.tasks:
        mine = settings.for_task(task).model_copy(update={"tasks": [task], "per_task": {}})
        rows, smallest = _planned(mine, mine.budgets), mine.budgets[0]
        # Settings differ at the smallest budget, so that another's hours are those it adds.
        first = _hours(_planned(mine, [smallest]))
        hours = {budget: _hours(_planned(mine, [smallest, budget])) - first for budget in mine.budgets} | {smallest: first}
        for rule in ("teacher", "annotate", "generate"):
            found.setdefault(rule, {})[task] = {str(budget): _asked(rule, task, rows, hours[budget][rule], mine) for budget in mine.budgets}
        found.setdefault("students", {})[task] = {"": _asked("students", task, rows, _hours(rows)["students"], mine)}
    return found


def _planned(settings: Settings, budgets: list[int]) -> pd.DataFrame:
    """The plan's stages, each with its rule."""
    from synthtune.scale import planner  # it imports the models' library

    table = planner.plan(settings.model_copy(update={"budgets": budgets})).table
    return table.assign(rule=table["stage"].map(RULE_OF))


def _hours(rows: pd.DataFrame) -> pd.Series:
    """Hours of each rule, one job after the other."""
    return (rows["gpu_hours"] / rows["gpus_used"]).groupby(rows["rule"]).sum()


def _asked(rule: str, task: str, rows: pd.DataFrame, hours: float, settings: Settings) -> dict[str, Any]:
    mine, chosen = rows[rows["rule"] == rule], settings.cluster.resources.get(rule, {})
    asked = {} if settings.plan.gpu == "cpu" else {"gpu": int(mine["gpus_used"].max())}
    asked["runtime"] = MINUTES + math.ceil(60 * hours * settings.cluster.hours_factor)
    # As many as there will be GPUs, if a setting does not say.
    processes = getattr(settings, rule).processes or int({**asked, **chosen}.get("gpu", 1))
    asked["cpus_per_task"] = settings.threads * processes
    more = MEGABYTES_MORE * processes if processes > 1 else 0
    asked["mem_mb"] = MEGABYTES + more + math.ceil(_bytes(rule, task, mine, processes, settings) / 1e6)
    return {**asked, **chosen}


def _bytes(rule: str, task: str, rows: pd.DataFrame, processes: int, settings: Settings) -> float:
    """What models and what is computed with them take of the machine's memory, when it is most."""
    size = 4 if rule == "students" else BYTES[settings.planned_format]
    copies, others = COPIES[rule], processes if processes > 1 else 0
    kept = 0.0
    if rule == "students":
        copies, kept = 2 * processes, processes * _states(task, settings)  # one for the frozen layers, one to train
    elif rule == "teacher":
        if settings.teacher.sharding == "replicated":
            copies = max(copies, 1 + 2 * others)  # each reads it, and trains a copy
        kept = 2 * 4 * float(rows["trained"].max())  # what was trained is collected and written by one process
    else:
        copies += others
    if settings.plan.gpu == "cpu":
        kept += processes * 2**30 * float((rows["memory_total"] - rows["memory_weights"]).max())
    return copies * size * float(rows["parameters"].max()) + kept


def _states(task: str, settings: Settings) -> float:
    """Bytes of what an encoder's frozen layers, or its embeddings, say of all texts: read once, for all cells."""
    from synthtune.scale import planner
    from synthtune.scale.model_cost import is_seq2seq, model_of

    if is_seq2seq(settings.students.model):
        return 0
    texts = settings.pool_size + max(settings.test_size, settings.nlg_test_size)
    texts += len(settings.budgets_of("generate")) * settings.generate.pairs
    length = min(settings.students.max_tokens, planner.Texts.of(task, settings).input + 2)
    return 4.0 * texts * length * model_of(settings.students.model, "classifier").encoder.hidden


def arguments(settings: Settings, jobs: int | None) -> list[str]:
    """Snakemake's options for the executor.

    Raises
    ------
    SettingsError
        If no jobs can be submitted from this machine.
    """
    if shutil.which("sbatch") is None:
        raise SettingsError("--executor slurm: there is no sbatch here. Run it on a machine of a SLURM cluster that can submit "
                            "jobs, or leave the option out to run on this machine.")
    chosen, accounting = settings.cluster, _said("sacct", "--noheader", "--starttime", "now") is not None  # not every cluster has it
    named = {"slurm_partition": chosen.partition, "slurm_account": chosen.account}
    defaults = [f"{name}={value}" for name, value in named.items() if value]
    return [
        "--executor", "slurm", "--jobs", str(jobs or SIDE_BY_SIDE), "--latency-wait", "60", "--slurm-requeue",
        "--slurm-status-command", "sacct" if accounting else "squeue",
        *(["--default-resources", *defaults] if defaults else []), *([] if chosen.account else ["--slurm-no-account"]),
        *chosen.options,
    ]  # fmt: skip


def _said(*command: str) -> str | None:
    """What a command of SLURM prints; None if it fails, is not there or does not answer."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return None


def cancel_left_over(folder: Path) -> None:
    """Cancel the jobs of a run in this folder whose Snakemake was killed."""
    left = [job["jobid"] for job in _queue(folder)]
    if left:
        _said("scancel", *left)


def _queue(folder: Path) -> list[dict[str, str]]:
    """The jobs of a run in this folder that are in the queue: jobid, state, restartcnt, reason; none if SLURM is silent."""
    names = ("jobid", "state", "restartcnt", "reason", "workdir")
    said = _said("squeue", "--me", "--noheader", "--Format", ",".join(f"{name}:|" for name in names)) or ""
    jobs = [dict(zip(names, line.split("|"), strict=False)) for line in said.splitlines()]
    return [job for job in jobs if job.get("workdir") == str(folder)]


def lost(log: str, path: Path) -> list[str]:
    """Sentences about jobs that ended without a word of their own: killed, out of time or memory, their machine lost.

    Parameters
    ----------
    log : str
        What Snakemake wrote to `path`.
    """
    found = re.findall(r"SLURM-job '(\S+)' failed, SLURM status is: '(\w+)'", log)
    return [f"The SLURM job {job} ended as {status}, without a word of its notebook. Ask for more with "
            f"--set cluster.resources (runtime in minutes, mem_mb), or see {path}." for job, status in dict.fromkeys(found)]


class Board:
    """Says what becomes of the jobs, from what they leave in the folder of the run, Snakemake's log, and the queue.

    Parameters
    ----------
    folder : Path
        Of the run.
    screen : Screen
    labels : dict
        What each executed notebook is called on the screen.
    """

    def __init__(self, folder: Path, screen: Screen, labels: dict[str, str]):
        self._folder, self._screen, self._labels = folder, screen, labels
        self._start = time.time()
        self._done: set[str] = set()
        self._told: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look once more, and end."""
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        queue_at = time.monotonic() + QUEUE_SECONDS
        while not self._over.wait(POLL_SECONDS):
            self._look()
            if time.monotonic() >= queue_at:
                self._look_at_queue()
                queue_at = time.monotonic() + QUEUE_SECONDS

    def _look(self) -> None:
        for name, label in self._labels.items():
            path = self._folder / "notebooks" / f"{name}.ipynb"
            if name not in self._done and path.exists() and path.stat().st_mtime >= self._start:
                self._done.add(name)
                self._screen.say(f"[{len(self._done)}/{len(self._labels)}] {label}: done")
        log = (self._folder / "snakemake.log").read_text("utf-8", errors="replace")
        for job in re.findall(r"has been submitted with SLURM jobid (\d+)", log):
            self._tell(job, f"SLURM job {job} submitted")

    def _look_at_queue(self) -> None:
        """Say what does not pass by itself."""
        for job in _queue(self._folder):
            name, restarts, reason = job["jobid"], int(job["restartcnt"] or 0), job["reason"]
            if restarts:
                self._tell(f"{name} {restarts}", f"SLURM job {name} is back in the queue, most likely because its machine was "
                                                 "lost; it goes on from what is finished.")
            if job["state"] == "PENDING" and reason.split("_")[0] not in USUAL:
                self._tell(f"{name} {reason}", f"SLURM job {name} waits, and SLURM says: {reason.replace('_', ' ')}. If it stays so, "
                                               "change what the job asks for (--set cluster.resources, cluster.partition) or ask "
                                               "who runs the cluster.")

    def _tell(self, what: str, line: str) -> None:
        """Print a line, each thing once."""
        if what not in self._told:
            self._told.add(what)
            self._screen.say(line)
