"""What a stage works on: one task at one budget, with the settings that apply to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from synthtune import settings as settings_module
from synthtune import tasks
from synthtune.settings import Settings, seed_for
from synthtune.tasks import Example, Task, Unlabelled


@dataclass(frozen=True)
class Context:
    """A task, a budget and the settings for them.

    Attributes
    ----------
    task : Task
    budget : int
        Number of gold examples. Stages that work for all budgets of a task (students) have the smallest.
    settings : Settings
        As they are for this task, with the number format decided.
    """

    task: Task
    budget: int
    settings: Settings

    @classmethod
    def of(cls, task: Task, settings: Settings, budget: int | None = None) -> Context:
        """The context of a loaded task; its smallest budget, if none is given.

        Raises
        ------
        SettingsError
            If these settings cannot run the task or the budget.
        """
        chosen = settings.check(task.name, budget)
        return cls(task, budget or chosen.budgets[0], chosen)

    @classmethod
    def load(cls, profile: str, task: str, budget: int | None = None, overrides: list[str] | dict[str, Any] | None = None,
             run_dir: str | Path = "", data_root: str = "") -> Context:
        """The context that a notebook's parameters name; this process then computes with as many threads as they say.

        Parameters
        ----------
        profile, overrides, run_dir, data_root
            As for `settings.load`.
        task : str
            A name, or a task file.
        budget : int, optional

        Raises
        ------
        SettingsError
            If a parameter cannot be used.
        CorpusError
            If the task's corpus cannot be read.
        """
        chosen = settings_module.load(profile, overrides, run_dir, data_root).check(task, budget)
        torch.set_num_threads(chosen.threads)
        return cls(tasks.load(task, chosen), budget or chosen.budgets[0], chosen)

    def at(self, budget: int) -> Context:
        """The same at another budget."""
        return replace(self, budget=budget)

    @property
    def folder(self) -> Path:
        """Where what is made at this budget is written."""
        return self.settings.folder / self.task.name / f"budget-{self.budget}"

    @property
    def gold(self) -> list[Example]:
        """The labelled examples."""
        return self.task.gold(self.budget)

    @property
    def unlabelled(self) -> list[Unlabelled]:
        """The inputs of the rest of the pool, without labels."""
        return self.task.unlabelled(self.budget)

    def seed(self, *parts: object) -> int:
        """A seed that depends on the run's seed, the task, the budget and a name."""
        return seed_for(self.settings, self.task.name, self.budget, *parts)

    def settings_of(self, stage: str) -> dict[str, Any]:
        """What the result of a stage depends on, as plain JSON; see `Settings.for_stage`."""
        return self.settings.for_stage(stage, self.task.name)

    def digests(self, stage: str) -> dict[str, str]:
        """What a stage's report says of its data and settings: SHA-256 of both."""
        return {"data_digest": self.task.digest, "settings_digest": self.settings.stage_digest(stage, self.task.name, self.budget)}
