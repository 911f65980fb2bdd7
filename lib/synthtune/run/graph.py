"""One run: its folder of results, the settings it is made with, and the notebooks that fill it.

Which notebooks must run is Snakemake's to decide (`workflow/Snakefile`), from the files of earlier runs, the
settings each stage depends on, and the notebooks themselves.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from synthtune import files, places, tasks
from synthtune.errors import StageError
from synthtune.models import assets
from synthtune.places import ROOT, as_typed
from synthtune.progress import duration
from synthtune.run import board
from synthtune.scale import cluster, machine
from synthtune.settings import Settings

NOTEBOOKS = ROOT / "notebooks"

# Minutes of each notebook and budget in the laptop profile, on a core with AVX2: the time left is reckoned by their ratios.
# The planner knows more of other settings, and takes ten seconds of a core.
MINUTES = {"classification": {"01_teacher": 3, "02_annotate": 2, "03_generate": 2, "04_students": 5.5},
           "generation": {"01_teacher": 8, "02_annotate": 8, "03_generate": 8, "04_students": 17.5}}


class Run:
    """What a run consists of.

    Parameters
    ----------
    settings : Settings
        The whole of them, resolved here.
    overrides : list of str
        What was changed from the profile, handed to every notebook.
    executor : list of str
        Snakemake's options to run notebooks elsewhere; none to run them on this machine.
    """

    def __init__(self, settings: Settings, overrides: list[str], executor: list[str]):
        self.settings, self.executor, self.folder = settings.resolved(), executor, settings.folder
        self.specs = {task: tasks.spec_of(task, settings) for task in settings.tasks}
        peaks = [cost["peak_rss_gib"] * 2**30 for cost in files.read_costs(self.folder)]
        # How this machine is divided over the notebooks; on a cluster each has a machine.
        self.division = machine.Division(settings.jobs or 1, {}) if executor else machine.divided(self.settings, max(peaks, default=0.0))
        decided = [f"number_format={self.settings.number_format}",
                   *(f"{stage}.processes={number}" for stage, number in self.division.processes.items())]
        common = {"profile": settings.profile, "overrides": [*overrides, *decided],
                  "run_dir": "" if settings.run_dir is None else str(self.folder)}
        # Parameters of each executed notebook, by its name without ".ipynb".
        self.jobs: dict[str, dict[str, Any]] = {}
        for task in settings.tasks:
            for budget in settings.budgets:
                generated = ["03_generate"] if "generate" in settings.objectives(budget) else []
                for stage in ("01_teacher", "02_annotate", *generated):
                    self.jobs[f"{task}-{budget}-{stage}"] = {**common, "task": task, "budget": budget}
            self.jobs[f"{task}-04_students"] = {**common, "task": task}
        self.jobs["05_figures"] = common

    def label(self, job: str) -> str:
        """Name an executed notebook as it is shown: "02_annotate · tweets · budget 125"."""
        return board.label(job.rpartition("-")[2], self.jobs[job])

    def work(self, job: str) -> float:
        """How much work an executed notebook is, beside the others."""
        stage, parameters = job.rpartition("-")[2], self.jobs[job]
        if "task" not in parameters:
            return 1
        budgets = 1 if "budget" in parameters else len(self.settings.budgets)
        return budgets * MINUTES[self.specs[parameters["task"]].task_type][stage]

    @contextlib.contextmanager
    def written(self, keep: bool) -> Iterator[None]:
        """Write what Snakemake and the notebooks read; with `keep` False, put the files back as they were at the end."""
        before = {}
        for name, content in self._contents().items():
            path = self.folder / name
            old = (path.read_bytes(), path.stat()) if path.exists() else None
            if files.write_if_changed(path, content):
                before[path] = old
        try:
            yield
        finally:
            for path, old in {} if keep else before.items():
                path.unlink()
                if old is not None:
                    path.write_bytes(old[0])
                    os.utime(path, ns=(old[1].st_atime_ns, old[1].st_mtime_ns))

    def _contents(self) -> dict[str, Any]:
        """What is written: settings of stages, sources of notebooks, parameters, the graph's tasks."""
        contents = {f"parameters/{job}.json": parameters for job, parameters in self.jobs.items()}
        for task, spec in self.specs.items():
            for stage in ("teacher", "annotate", "generate", "students"):
                rows = {"rows": spec.rows} if spec.rows else {}
                contents[f"settings/{task}/{stage}.json"] = self.settings.for_stage(stage, task) | rows
        contents["settings/figures.json"] = self.settings.for_stage("figures")
        for stage in {job.rpartition("-")[2] for job in self.jobs}:  # what is stored of outputs makes no notebook run again
            contents[f"settings/{stage}.json"] = [cell["source"] for cell in files.read_json(NOTEBOOKS / f"{stage}.ipynb")["cells"]]
        contents["workflow.json"] = {
            "tasks": list(self.settings.tasks), "budgets": list(self.settings.budgets), "generated": self.settings.budgets_of("generate"),
            "notebooks": str(NOTEBOOKS), "python": sys.executable,
            "resources": cluster.resources(self.settings) if self.executor else {}}
        return {"settings.json": self.settings.model_dump(mode="json"), **contents}

    def snakemake(self) -> list[str]:
        """The command that executes what is missing or out of date."""
        generation = [f"{task}/results.parquet" for task, spec in self.specs.items() if spec.task_type == "generation"]
        return [
            sys.executable, "-m", "snakemake", "figures", "--snakefile", str(ROOT / "workflow" / "Snakefile"),
            "--directory", str(self.folder), "--configfile", str(self.folder / "workflow.json"),
            "--scheduler", "greedy", "--rerun-incomplete", "--nolock", "--rerun-triggers", "mtime", "input",
            "--workflow-profile", "none",
            *(self.executor or ["--cores", str(self.division.jobs), "--latency-wait", "2"]),
            # The longest first, so that no core waits for one of them at the end.
            *(["--prioritize", *generation] if generation else []),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Environment variables of Snakemake and all that it starts."""
        found = {**places.environment(self.settings.threads), "XDG_CACHE_HOME": str(ROOT / ".cache")}
        return {name: value for name, value in found.items() if name not in ("SNAKEMAKE_PROFILE", board.RUN)}

    def pending(self) -> list[str]:
        """Names of the executed notebooks that are missing or out of date, in the order of the graph."""
        plan = subprocess.run([*self.snakemake(), "--dry-run", "--printshellcmds"], env=self.environment(), check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        if plan.returncode:
            raise StageError(last_words("The graph of notebooks could not be made", plan.stdout))
        found = set(re.findall(r"--parameters parameters/(\S+)\.json", plan.stdout))
        return [job for job in self.jobs if job in found]

    def print_plan(self) -> None:
        """List what would run and what would be reused."""
        pending = set(self.pending())
        print(f"{len(pending)} of {len(self.jobs)} notebooks would run, {self.division.jobs} at a time:")
        for job in self.jobs:
            print(f"  {'run  ' if job in pending else 'reuse'}  {self.label(job)}")

    def fetch_assets(self) -> None:
        """Fetch the models and corpora that the settings name, before anything is computed."""
        for task in self.settings.tasks:
            tasks.prepare(task, self.settings)  # the corpora first: they are small, and a missing one is found at once
            if task in self.settings.task_files:
                tasks.load(task, self.settings)  # rows that are too few as well
        corpora = {spec.asset for spec in self.specs.values() if spec.asset}
        models = self.settings.models()
        for name in sorted(corpora.union(models)):
            (assets.model_path if name in models else assets.fetch)(name)

    def print_results(self) -> None:
        """Say where the figures, the table and the report are, and what they cost."""
        figures = self.folder / "figures"
        print(f"  figures    {as_typed(figures)}/figure_1 to figure_7 (pdf, svg, png, csv)")
        print(f"  table      {as_typed(figures)}/table_1 (csv, md, tex)")
        print(f"  claims     {as_typed(figures / 'claims.md')}")
        print(f"  report     {as_typed(figures / 'report.html')}")
        print(f"  notebooks  {as_typed(self.folder / 'notebooks')}/, executed")
        if costs := files.read_costs(self.folder):
            spent, most = duration(60 * sum(cost["minutes"] for cost in costs)), max(cost["peak_rss_gib"] for cost in costs)
            print(f"  cost       {spent} of notebooks in all, {most:.1f} GiB at most in one")


def last_words(what: str, text: str) -> str:
    """A sentence from the output of a program that failed: the lines from its first complaint on, or the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [number for number, line in enumerate(lines) if re.search(r"error|exception|space left", line, re.IGNORECASE)]
    first = complaints[0] if complaints else max(len(lines) - 6, 0)
    return f"{what}: {' '.join(lines[first : first + 6])}"
