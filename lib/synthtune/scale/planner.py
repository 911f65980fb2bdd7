"""What a profile would take, before anything is downloaded: memory, GPUs, hours, disk and money, stage by stage.

`synthtune.scale.stage_cost` says what each stage takes. The jobs of a stage (its budgets, its cells) that fit on fewer GPUs than
there are run side by side, tasks one after the other; GPUs that stand idle meanwhile are not paid for.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from synthtune.files import atomic_path, write_json
from synthtune.models import assets
from synthtune.scale.devices import GIB, Device, device
from synthtune.scale.stage_cost import Shape, Stage, Texts, stages
from synthtune.settings import PlanSettings, Settings

COUNTS = tuple(2**power for power in range(11))
"""Numbers of GPUs one job may be spread over."""

ANSWERING = ("evaluate", "annotate", "generate")
"""Stages in which a teacher is not trained: its layers are then laid out over the GPUs of a job, see `synthtune.models.placement`."""

# Columns of the terminal: heading, width, and the column of the plan's table with its format.
MEMORY = (
    ("weights", 8, "memory_weights"), ("grads", 7, "memory_gradients"), ("optim.", 7, "memory_optimizer"),
    ("activ.", 7, "activations_kept"), ("checkp.", 8, "activations_checkpointed"), ("cache", 7, "memory_cache"),
    ("logits", 7, "memory_logits"), ("gather", 7, "memory_gathered"), ("total", 7, "memory_total"),
)
SUMS = (
    ("jobs", 6, "jobs", "{:.0f}"), ("tokens", 10, "tokens", "short"), ("FLOP", 10, "flops", "short"),
    ("GPU hours", 11, "gpu_hours", "{:.2f}"), ("hours", 9, "hours", "{:.2f}"), ("disk", 10, "disk_bytes", "bytes"),
    ("dollars", 10, "dollars", "{:.2f}"),
)

ASKED = ("requests", "tokens_sent", "tokens_received", "endpoint_dollars")
"""Columns of the table on what an endpoint is asked."""


def smallest_gpus(stage: Stage, limit: float) -> int | None:
    """Fewest GPUs that hold a stage's job, in powers of two; None if 1,024 do not.

    Parameters
    ----------
    stage : Stage
    limit : float
        Bytes a GPU may be filled with.
    """
    return next((count for count in COUNTS if stage.memory(stage.at(count)).total <= limit), None)


def largest(stage: Stage, shape: Shape, name: str, limit: float) -> int:
    """Largest batch or length (`name`) with which a job fits; below 1 if none does. Memory grows in a line with both."""
    base, step = (stage.memory(replace(shape, **{name: value})).total for value in (0, 1))
    return math.floor((limit - base) / (step - base)) if step > base else 0


def remedies(stage: Stage, gpus: int, plan: PlanSettings, limit: float) -> list[str]:
    """Settings each of which makes a job fit that does not fit on `gpus` GPUs; if none does alone, all at once."""
    shape, found = stage.at(gpus), []
    fewest = smallest_gpus(stage, limit)
    if fewest and plan.gpu != "cpu":
        found.append(f"plan.gpus={fewest}")
    for name, setting, least in (("batch", stage.batch_setting, 1), ("length", stage.length_setting, 16)):
        most = largest(stage, shape, name, limit)
        if most >= least:
            found.append(f"{setting}={most}")
    if not stage.tunes:
        return found
    options = {name: value for name, value in (("activations", "checkpointed"), ("method", "lora"))
               if getattr(shape, name) != value}
    said = [f"teacher.{name}={value}" for name, value in options.items()]
    found += [each for each, (name, value) in zip(said, options.items(), strict=True)
              if stage.memory(replace(shape, **{name: value})).total <= limit]
    if not found and options:
        most = largest(stage, replace(shape, **options), "batch", limit)
        if most >= 1:
            found.append(" with ".join([*said, f"plan.micro_batch={most}"]))
    return found


@dataclass(frozen=True)
class Plan:
    """What a profile would take.

    Attributes
    ----------
    settings : Settings
    machine : Device
    gpus : int
        In all.
    price : float
        US dollars for an hour of one.
    table : DataFrame
        One row per task and stage. Memory is in GiB per GPU, times in hours, disk in bytes, money in US dollars, what an
        endpoint is paid included.
    downloads : dict
        Bytes of each model's weights.
    advice : list of str
        What to change where a stage does not fit, for the task that needs most.
    """

    settings: Settings
    machine: Device
    gpus: int
    price: float
    table: pd.DataFrame
    downloads: dict[str, float]
    advice: list[str]

    def save(self) -> tuple[Path, Path]:
        """Write plan.csv and plan.json into the run's folder, and give their paths."""
        table, summary = self.settings.folder / "plan.csv", self.settings.folder / "plan.json"
        with atomic_path(table) as temporary:
            self.table.to_csv(temporary, index=False)
        sums = self.table[["tokens", "flops", "gpu_hours", "hours", "disk_bytes", "dollars", *ASKED]].sum()
        write_json(
            summary,
            {
                "profile": self.settings.profile,
                "device": asdict(self.machine),
                "gpus": self.gpus,
                "assumptions": self.settings.plan.model_dump(mode="json"),
                "tokens_per_text": {task: asdict(Texts.of(task, self.settings)) for task in self.settings.tasks},
                "total": {name: float(value) for name, value in sums.items()},
                "download_bytes": self.downloads,
                "advice": self.advice,
            },
        )
        return table, summary

    def text(self) -> str:
        """The plan for a terminal of 100 columns."""
        table, machine = self.table, self.machine
        each = f"{machine.memory:,.0f} GiB, {machine.tflops:,.4g} TFLOP/s, {machine.bandwidth:,.0f} GB/s"
        models = table[table["parameters"] > 0].sort_values("trained", ascending=False).drop_duplicates("model")
        way, by_stage = self.settings.teacher.activations, table.groupby("stage", sort=False)
        memory = [self._memory(stage, rows) for stage, rows in by_stage if rows["parameters"].any()]
        lines = [
            f"Profile {self.settings.profile} on {self.gpus} × {machine.name} ({each}), ${self.price:.2f} an hour each",
            "",
            "Models",
            *(f"  {row.model:<24} {_short(row.parameters):>8} parameters, {_short(row.trained):>8} trained,"
              f" {self.downloads[row.model] / 1e9:6.2f} GB to download" for row in models.itertuples()),
            "",
            "Memory in GiB on each GPU, for the task that needs most; GPUs a job needs; texts in a pass",
            " " * 21 + "".join(f"{head:>{width}}" for head, width, _ in MEMORY) + " GPUs    batch",
            *memory,
            f"activ., checkp.: activations kept, or checkpointed (total: {way}). batch: set/most that fit",
            "",
            f"{'Work':<21}" + "".join(f"{head:>{width}}" for head, width, *_ in SUMS),
            *(self._work(stage, rows) for stage, rows in by_stage),
            self._work("all", table),
            "",
            f"{'By task':<21}",
            *(self._work(task, rows) for task, rows in table.groupby("task", sort=False)),
            "",
            f"Download: {sum(self.downloads.values()) / 1e9:.1f} GB of weights; the corpora are not counted.",
        ]
        return "\n".join([*lines, *(textwrap.fill(sentence, 100, subsequent_indent="  ") for sentence in self._sentences())])

    @staticmethod
    def _memory(stage: str, rows: pd.DataFrame) -> str:
        row = rows.sort_values(["gpus_needed", "memory_total"]).iloc[-1]
        cells = "".join(f"{'' if pd.isna(row[name]) else f'{row[name]:.2f}':>{width}}" for _, width, name in MEMORY)
        gpus = "none" if pd.isna(row["gpus_needed"]) else f"{int(row['gpus_needed'])}"
        return f"{stage:<21}{cells}{gpus:>5}{row['batch']:>4.0f}/{row['largest_batch']:<4.0f}"

    @staticmethod
    def _work(name: str, rows: pd.DataFrame) -> str:
        def said(value: float, form: str) -> str:
            return form.format(value) if "{" in form else _short(value) + ("B" if form == "bytes" else "")

        return f"{name:<21}" + "".join(f"{said(rows[column].sum(), form):>{width}}" for _, width, column, form in SUMS)

    def _sentences(self) -> list[str]:
        """What an endpoint is asked, and the advice."""
        asked, server = self.table.groupby("stage", sort=False)[list(ASKED)].sum().query("requests > 0"), self.settings.endpoint
        if asked.empty:
            return self.advice
        sums = asked.sum()
        priced = server.input_price is not None or server.output_price is not None
        paid = f", at most ${sums['endpoint_dollars']:,.2f}" if priced else ""
        each = ", ".join(f"{stage} {number:,}" for stage, number in asked["requests"].items())
        said = (f"Endpoint {server.name}: {sums['requests']:,.0f} requests ({each}), about {sums['tokens_sent']:,.0f} tokens read, "
                f"at most {sums['tokens_received']:,.0f} written{paid}.")
        return [said, *self.advice]


def plan(settings: Settings) -> Plan:
    """Work out what a profile would take.

    Parameters
    ----------
    settings : Settings
        `settings.plan` says on which GPUs, how fast and at what price.

    Returns
    -------
    Plan

    Raises
    ------
    SettingsError
        For an unknown GPU or model, with the nearest names.
    AssetError
        For a student that cannot do a task.
    """
    chosen, machine = settings.plan, device(settings)
    limit = machine.memory * GIB * (1 - chosen.memory_reserve)
    needed = {stage: smallest_gpus(stage, limit) for task in settings.tasks for stage in stages(task, settings, machine)}
    gpus = 1 if chosen.gpu == "cpu" else chosen.gpus or max((count for count in needed.values() if count), default=1)
    price = settings.cost_per_hour if chosen.price is None else chosen.price
    smallest = {stage.model: min(other.parameters for other in needed if other.model == stage.model)
                for stage in needed if stage.parameters}
    return Plan(
        settings,
        machine,
        gpus,
        price,
        pd.DataFrame([_row(stage, count, gpus, price, limit) for stage, count in needed.items()]),
        {name: assets.download_bytes(name, parameters) for name, parameters in smallest.items()},
        _advice(needed, gpus, settings, machine, limit),
    )


def _row(stage: Stage, needed: int | None, gpus: int, price: float, limit: float) -> dict[str, Any]:
    """A stage's row of the table."""
    fits = needed is not None and needed <= gpus
    used = needed if fits else gpus  # what does not fit is shown on all the GPUs there are
    shape = stage.at(used)
    memory = stage.memory(shape)
    kept, again = (stage.memory(replace(shape, activations=way)).activations / GIB for way in ("kept", "checkpointed"))
    hours = stage.seconds(used) / 3600
    asked = stage.asked
    server = stage.settings.endpoint
    paid = (asked.read * (server.input_price or 0) + asked.written * (server.output_price or 0)) / 1e6 if server else 0
    return {
        "task": stage.task,
        "stage": stage.name,
        "model": stage.model,
        "jobs": stage.jobs,
        "parameters": stage.parameters,
        "trained": stage.trained,
        "gpus_needed": needed,
        "gpus_used": used,
        "batch": shape.batch,
        "largest_batch": max(0, largest(stage, shape, "batch", limit)),
        **{f"memory_{part.name}": getattr(memory, part.name) / GIB for part in fields(memory)},
        "memory_total": memory.total / GIB,
        "activations_kept": kept,
        "activations_checkpointed": again if stage.tunes else math.nan,
        "fits": fits,
        "tokens": stage.tokens,
        "flops": stage.flops,
        "gpu_hours": hours * used,
        "hours": hours / (min(gpus // used, max(stage.jobs, 1)) if fits else 1),
        "disk_bytes": stage.disk,
        "dollars": hours * used * price + paid,
        "requests": asked.requests,
        "tokens_sent": asked.read,
        "tokens_received": asked.written,
        "endpoint_dollars": paid,
    }


def _advice(needed: dict[Stage, int | None], gpus: int, settings: Settings, machine: Device, limit: float) -> list[str]:
    """What to change where stages do not fit, and how to divide the GPUs where several hold one teacher."""
    worst: dict[str, tuple[float, Stage]] = {}
    for stage, count in needed.items():
        total = stage.memory(stage.at(gpus)).total
        if (count is None or count > gpus) and total > worst.get(stage.name, (0, stage))[0]:
            worst[stage.name] = total, stage
    said = []
    for name, (total, stage) in worst.items():
        found = remedies(stage, gpus, settings.plan, limit)
        said.append(
            f"{name} ({stage.task} needs most) does not fit on {gpus} × {machine.name}, {total / GIB:,.1f} of "
            f"{limit / GIB:,.1f} GiB: "
            + (f"any of {', '.join(found)} would do." if found else "no single setting is enough.")
        )
    copies = max((count for stage, count in needed.items() if stage.name in ANSWERING and count), default=1)
    if settings.plan.gpu != "cpu" and copies > 1:
        engine = "." if settings.generate.engine == "batches" else (
            ", and generate.engine=batches: other engines work where one GPU holds the teacher.")
        said.append(f"A copy of the teacher that annotates and generates takes {copies} GPUs: set annotate.processes and "
                    f"generate.processes to a machine's GPUs divided by {copies}{engine}")
    return said


def _short(number: float) -> str:
    """1,234,567 as "1.2 M"."""
    for unit, factor in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number:.0f} "
