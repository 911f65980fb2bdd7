"""The command behind run_all.sh: fetch what is needed, run what is not up to date, say where results are.

`synthtune.run.graph` knows what there is to do and `synthtune.run.execution` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthtune.errors import SettingsError, SynthtuneError, nearest

# Only the standard library here: --help answers before there is an environment.
from synthtune.places import as_typed, started_in
from synthtune.run import exit_status

if TYPE_CHECKING:
    from synthtune.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        Exit status: 0, 1 (a notebook or a download failed, the user's data has errors), 2 (bad usage), 130 (interrupted).
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    custom = chosen.task is not None or chosen.check or chosen.fix or chosen.out is not None
    try:
        return exit_status(lambda: _custom(chosen, parser) if custom else _reproduce(chosen))
    except KeyboardInterrupt:
        print("\nInterrupted. Finished work is kept: run the same command again to continue.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run_all.sh", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Reproduce the whole study: fine-tune teachers, annotate, generate, train students,\n"
        "draw every figure and the table. What an earlier run finished is reused.",
        epilog="  ./run_all.sh test [pytest's options]    run the tests\n\n"
        "Results go to runs/PROFILE/. Models and corpora are cached in .cache/synthtune, or in the folder that\nthe environment "
        "variable SYNTHTUNE_CACHE names.")
    add = parser.add_argument
    add("--profile", default="laptop", help="a file of workflow/profiles, without .yaml (default: laptop; smoke takes minutes)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides",
        help="change a setting of the profile, such as teacher.epochs=6; may be repeated")
    add("--only", action="append", default=[], metavar="TASK", help="this task instead of all of the profile's; may be repeated")
    add("--jobs", type=int, metavar="N", help="notebooks to run side by side")
    add("--executor", choices=["local", "slurm"], default="local", help="run notebooks on this machine, or as jobs of a SLURM cluster")
    add("--data-root", metavar="DIR", help="folder with real corpora: webnlg/, sgd/, rte/, banking77/ …, or official to fetch them")
    add("--dry-run", action="store_true", help="list the notebooks that would run, and stop")
    add("--plan", action="store_true", help="say what memory, GPUs, hours and money the profile would take, and stop")
    add("--gpu", metavar="NAME", help='with --plan: kind of GPU, such as "H100 80GB", or cpu')
    add("--gpus", metavar="N", help="with --plan: number of GPUs")
    add("--price", metavar="DOLLARS", help="with --plan: price of one GPU for an hour")
    add = parser.add_argument_group("your data, a custom task").add_argument
    add("--task", metavar="FILE", help="task file: a few lines of YAML that say where your data is; see docs/your_data.md")
    add("--out", metavar="DIR", help="folder for the results; beside the task file by default")
    add("--check", action="store_true", help="read and check your data, and train nothing")
    add("--fix", action="store_true", help="check your data, and write repaired copies beside the files")
    return parser


def _custom(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from synthtune.custom import command

    os.environ.setdefault("HF_HUB_OFFLINE", "0" if _from_hub(chosen) else "1")
    mine = ("task", "check", "fix", "out", "overrides")
    other = next((name for name, value in vars(chosen).items() if name not in mine and value != parser.get_default(name)), None)
    if other is not None:
        raise SettingsError(f"--{other.replace('_', '-')} is about the package's own tasks and cannot be combined with --task: "
                            "leave it out, or put it into the task file if there is a line for it.")
    _end_in_order()
    return command.run(chosen.task, chosen.check, chosen.fix, chosen.out, chosen.overrides)


def _from_hub(chosen: argparse.Namespace) -> bool:
    """Whether a task file takes rows from the hub, or its profile models. What is wrong with either is said later."""
    from synthtune import settings as settings_module
    from synthtune.custom import task_file
    from synthtune.models import names

    with contextlib.suppress(SynthtuneError):
        task = task_file.load(started_in() / Path(chosen.task or "").expanduser())
        models = settings_module.read(task.profile, chosen.overrides).named_models().values()
        return bool(task.hub or any(map(names.from_hub, models)))
    return False


def _reproduce(chosen: argparse.Namespace) -> int:
    settings, overrides = _settings(chosen)
    # The hub's client reads this when it is imported, here and in every notebook.
    os.environ.setdefault("HF_HUB_OFFLINE", "0" if settings.hub_models() or settings.hub_datasets() else "1")
    if chosen.plan:
        from synthtune.scale import planner

        plan = planner.plan(settings)
        written = plan.save()
        print(plan.text())
        print(f"Written to {' and '.join(as_typed(path) for path in written)}.")
        return 0
    for task in settings.tasks:
        for budget in settings.budgets:
            settings.check(task, budget)

    _end_in_order()
    from synthtune.run import execution, graph
    from synthtune.scale import cluster

    run = graph.Run(settings, overrides, cluster.arguments(settings, chosen.jobs) if chosen.executor == "slurm" else [])
    with execution.locked(run), run.written(keep=not chosen.dry_run):
        if chosen.dry_run:
            run.print_plan()
            return 0
        pending = run.pending()
        if not pending:
            print("Nothing to do: everything is up to date.")
            run.print_results()
            return 0
        run.fetch_assets()
        return execution.execute(run, pending)


def _settings(chosen: argparse.Namespace) -> tuple[Settings, list[str]]:
    """The settings of a run, and what of them every notebook is told beside the profile."""
    from synthtune import settings as settings_module

    overrides = list(chosen.overrides)
    if chosen.only:
        files = settings_module.read(chosen.profile, overrides).task_files
        known = (*settings_module.TASKS, *settings_module.PUBLIC, *files)
        unknown = next((task for task in chosen.only if task not in known and not settings_module.is_task_file(task)), None)
        if unknown is not None:
            raise SettingsError(f"--only: unknown task '{unknown}': {nearest(unknown, known)}")
        overrides += _tasks_overrides(list(dict.fromkeys(chosen.only)), files)
    if chosen.data_root == settings_module.OFFICIAL:
        overrides.append(f"data_root={chosen.data_root}")
    elif chosen.data_root is not None:
        folder = (started_in() / Path(chosen.data_root).expanduser()).resolve()
        if not folder.is_dir():
            raise SettingsError(f"--data-root: there is no folder {folder}.")
        overrides.append(f"data_root={json.dumps(str(folder))}")
    here = [] if chosen.jobs is None else [f"jobs={chosen.jobs}"]
    planned = {name: value for name in ("gpu", "gpus", "price") if (value := getattr(chosen, name)) is not None}
    if planned and not chosen.plan:
        raise SettingsError(f"--{next(iter(planned))} is an option of --plan: add --plan.")
    here += [f"plan.{name}={value}" for name, value in planned.items()]
    settings = settings_module.load(chosen.profile, overrides + here)
    absent = settings.without_corpus()
    if absent and not chosen.only and len(absent) < len(settings.tasks):
        print(f"Left out, because {settings.data_root} has no such folder: {', '.join(absent)}.")
        settings = settings.model_copy(update={"tasks": [task for task in settings.tasks if task not in absent]})
        overrides.append(f"tasks={json.dumps(settings.tasks)}")
    if settings.task_files:  # notebooks start in other folders
        overrides += _tasks_overrides(settings.tasks, settings.task_files)
    overrides += [f"{setting}={json.dumps(name)}" for setting, name in settings.named_models().items() if "/" in name]
    return settings, overrides


def _tasks_overrides(tasks: list[str], files: dict[str, Path]) -> list[str]:
    return [f"tasks={json.dumps(tasks)}", f"task_files={json.dumps({name: str(path) for name, path in files.items()})}"]


def _end_in_order() -> None:
    """Let a request to end, or a closed terminal, do what Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


if __name__ == "__main__":
    sys.exit(main())
