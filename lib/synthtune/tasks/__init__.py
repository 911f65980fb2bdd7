"""The tasks, one module for each or for a family with one official format; what reads, splits and loads them.

A module with a line ``TASKS = {name: Spec(...)}`` is a task: `synthtune.task_list` finds it. Settings need these specs, and loading
a task needs settings, so that `Task`, `load` and the other names of `synthtune.tasks.loading` are imported when they are asked for.
"""

from typing import TYPE_CHECKING, Any

from synthtune.tasks.example import Example, PromptTemplate

if TYPE_CHECKING:
    from synthtune.tasks.loading import ENOUGH, Task, Unlabelled, load, prepare, seed_for, spec_of

__all__ = ["ENOUGH", "Example", "Task", "Unlabelled", "PromptTemplate", "load", "prepare", "seed_for", "spec_of"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from synthtune.tasks import loading

    return getattr(loading, name)
