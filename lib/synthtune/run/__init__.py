"""The command line, the environment, and notebooks that are run."""

import sys
from collections.abc import Callable

from synthtune.errors import SettingsError, SynthtuneError


def exit_status(do: Callable[[], int | None]) -> int:
    """Exit status of a command: what `do` returns, 2 for bad usage, 1 for any other error of ours, told in its sentence."""
    try:
        return do() or 0
    except SynthtuneError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
