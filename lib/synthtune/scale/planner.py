"""What a profile would take, before anything is downloaded: memory, GPUs, hours, disk and money, stage by stage.

`synthtune.scale.stage_cost` says what each stage takes. The jobs of a stage (its budgets, its cells) that fit on fewer GPUs than
there are run side by side, tasks one after the other; GPUs that stand idle meanwhile are not paid for.
"""

import math
import textwrap
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from synthtune.files import atomic_path, write_json
from synthtune.models import assets
from synthtune.scale.devices import GIB, Device, device
from synthtune.scale.stage_cost import Shape, Stage, Texts, stages
from synthtune.settings import PlanSettings, Settings

# Numbers of GPUs one job may be spread over.
COUNTS = tuple(2**power for power in range(11))

# Stages in which a teacher is not trained: its layers are then laid out over the GPUs of a job, see `synthtune.models.placement`.
ANSWERING = ("evaluate", "annotate", "generate")

MEMORY = {
    "weights": "memory_weights", "grads": "memory_gradients", "optim.": "memory_optimizer", "activ.": "activations_kept",
    "checkp.": "activations_checkpointed", "cache": "memory_cache", "logits": "memory_logits", "gather": "memory_gathered",
    "total": "memory_total",
}

# Columns of the terminal, by their headings, and those of the plan's table.
SUMS = {"jobs": "jobs", "tokens": "tokens", "FLOP": "flops", "device hours": "gpu_hours", "hours": "hours", "disk": "disk_bytes",
        "dollars": "dollars"}

# 1,234,567 as "1.23M".
short = tqdm.format_sizeof

# Columns of the table on what an endpoint is asked.
ASKED = ("requests", "tokens_sent", "tokens_received", "endpoint_dollars")


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
            found.append(f"{setting}={most * gpus if name == 'batch' and stage.tunes else most}")
    if not stage.tunes:
        return found
    options = {name: value for name, value in (("activations", "checkpointed"), ("method", "lora")) if getattr(shape, name) != value}
    said = [f"teacher.{name}={value}" for name, value in options.items()]
    found += [each for each, (name, value) in zip(said, options.items(), strict=True)
              if stage.memory(replace(shape, **{name: value})).total <= limit]
    if not found and options:
        most = largest(stage, replace(shape, **options), "batch", limit)
        if most >= 1:
            found.append(" with ".join([*said, f"{stage.batch_setting}={most * gpus}"]))
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
        write_json(summary, {
            "profile": self.settings.profile, "device": asdict(self.machine), "gpus": self.gpus,
            "assumptions": self.settings.plan.model_dump(mode="json"),
            "tokens_per_text": {task: asdict(Texts.of(task, self.settings)) for task in self.settings.tasks},
            "total": {name: float(value) for name, value in sums.items()}, "download_bytes": self.downloads, "advice": self.advice})
        return table, summary

    def text(self) -> str:
        """The plan for a terminal of 100 columns."""
        table, machine = self.table, self.machine
        each = f"{machine.memory:,.0f} GiB, {machine.tflops:,.4g} TFLOP/s, {machine.bandwidth:,.0f} GB/s"
        models = table[table["parameters"] > 0].sort_values("trained", ascending=False).drop_duplicates("model")
        lines = [
            f"Profile {self.settings.profile} on {self.gpus} × {machine.name} ({each}), ${self.price:.2f} an hour each",
            "",
            "Models",
            *(f"  {row.model:<24} {short(row.parameters):>8} parameters, {short(row.trained):>8} trained,"
              f" {self.downloads[row.model] / 1e9:6.2f} GB to download" for row in models.itertuples()),
            "",
            "Memory in GiB on each device, for the task that needs most; devices a job needs; texts in a pass",
            self._memory(),
            f"activ., checkp.: activations kept, or checkpointed (total: {self.settings.teacher.activations}). batch: set/most that fit",
            "",
            "Work by stage, in all, and by task",
            self._work(),
            "",
            f"Download: {sum(self.downloads.values()) / 1e9:.1f} GB of weights; the corpora are not counted.",
            *(textwrap.fill(sentence, 100, subsequent_indent="  ") for sentence in self._sentences()),
        ]
        return "\n".join(lines)

    def _memory(self) -> str:
        """Of each stage that loads a model, the task that needs most."""
        loading = self.table[self.table["parameters"] > 0]
        rows = loading.sort_values(["gpus_needed", "memory_total"]).groupby("stage").tail(1).set_index("stage")
        rows = rows.loc[loading["stage"].unique()]
        batch = rows["batch"].map("{:.0f}/".format) + rows["largest_batch"].map("{:.0f}".format)
        gpus = rows["gpus_needed"].map(lambda count: "none" if pd.isna(count) else f"{count:.0f}")
        # Numbers and an index would cost a space in each column.
        shown = rows[list(MEMORY.values())].set_axis(list(MEMORY), axis=1).map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
        shown.insert(0, "", shown.index.str.ljust(20))
        return shown.assign(devices=gpus, batch=batch).to_string(index=False)

    def _work(self) -> str:
        """Sums by stage, of all, and by task."""
        columns = list(SUMS.values())
        by_stage, by_task = (self.table.groupby(name, sort=False)[columns].sum() for name in ("stage", "task"))
        sums = pd.concat([by_stage, self.table[columns].sum().to_frame("all").T, by_task]).set_axis(list(SUMS), axis=1)
        formats = {"jobs": "{:.0f}".format, "tokens": short, "FLOP": short, "disk": lambda number: short(number, "B")}
        return sums.to_string(float_format="{:.2f}".format, formatters=formats)

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
    table = pd.DataFrame([_row(stage, count, gpus, price, limit) for stage, count in needed.items()])
    downloads = {name: assets.download_bytes(name, parameters) for name, parameters in smallest.items()}
    return Plan(settings, machine, gpus, price, table, downloads, _advice(needed, gpus, settings, machine, limit))


def _row(stage: Stage, needed: int | None, gpus: int, price: float, limit: float) -> dict[str, Any]:
    """A stage's row of the table."""
    fits = needed is not None and needed <= gpus
    used = needed if fits else gpus  # what does not fit is shown on all the GPUs there are
    shape = stage.at(used)
    memory = stage.memory(shape)
    kept, again = (stage.memory(replace(shape, activations=way)).activations / GIB for way in ("kept", "checkpointed"))
    hours = stage.seconds(used) / 3600
    server = stage.settings.endpoint
    paid = (stage.tokens_sent * (server.input_price or 0) + stage.tokens_received * (server.output_price or 0)) / 1e6 if server else 0
    return {
        "task": stage.task, "stage": stage.name,
        **{name: getattr(stage, name) for name in ("model", "jobs", "parameters", "trained", "tokens", "flops")},
        "gpus_needed": needed, "gpus_used": used, "batch": shape.batch, "largest_batch": max(0, largest(stage, shape, "batch", limit)),
        **{f"memory_{part.name}": getattr(memory, part.name) / GIB for part in fields(memory)},
        "memory_total": memory.total / GIB, "activations_kept": kept, "activations_checkpointed": again if stage.tunes else math.nan,
        "fits": fits,
        "gpu_hours": hours * used, "hours": hours / (min(gpus // used, max(stage.jobs, 1)) if fits else 1),
        "disk_bytes": stage.disk, "dollars": hours * used * price + paid,
        **{name: getattr(stage, name) for name in ("requests", "tokens_sent", "tokens_received")}, "endpoint_dollars": paid}


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
        remedy = f"any of {', '.join(found)} would do." if found else "no single setting is enough."
        said.append(f"{name} ({stage.task} needs most) does not fit on {gpus} × {machine.name}, {total / GIB:,.1f} of "
                    f"{limit / GIB:,.1f} GiB: {remedy}")
    copies = max((count for stage, count in needed.items() if stage.name in ANSWERING and count), default=1)
    if settings.plan.gpu != "cpu" and copies > 1:
        engine = "." if settings.generate.engine == "batches" else (
            ", and generate.engine=batches: other engines work where one GPU holds the teacher.")
        said.append(f"A copy of the teacher that annotates and generates takes {copies} GPUs: set annotate.processes and "
                    f"generate.processes to a machine's GPUs divided by {copies}{engine}")
    return said
