"""Errors a user can act on: one sentence that says what is wrong, where, and what to do next."""

import difflib
from collections.abc import Iterable


class SynthtuneError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(SynthtuneError):
    """A profile, a setting or a notebook parameter is unknown or has a value that cannot be used."""


class AssetError(SynthtuneError):
    """A model or corpus could not be fetched, verified or unpacked."""


class CorpusError(SynthtuneError):
    """A corpus file is missing or malformed; the message names the file and the line."""


class RowsError(SynthtuneError):
    """A file of a custom task cannot be read or written; the message names the file and the row."""


class StageError(SynthtuneError):
    """A stage cannot go on: its inputs are missing, or its outputs cannot be written."""


# PyTorch's words.
GPU_FULL = "CUDA out of memory"

# What to say when a GPU is too small.
SAVE_GPU_MEMORY = ("the GPU's memory ran out. Lower teacher.batch_size, annotate.batch_size, generate.batch_size or "
                   "students.batch_size, whichever stage it was. To train the teacher, set teacher.activations=checkpointed and "
                   "teacher.sharding=sharded; to annotate and generate, fewer annotate.processes and generate.processes give "
                   "each more GPUs. ./run_all.sh --plan says what fits.")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which names are valid, the one that was probably meant first.

    Parameters
    ----------
    name : str
        What the user typed.
    valid : iterable of str
        The names that would have worked.
    """
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Valid: {', '.join(valid)}."
