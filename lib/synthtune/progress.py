"""Progress of long loops: how far, how fast, how long still, wherever the loop runs.

In a terminal it is a tqdm bar. In Jupyter it is one line of text that is rewritten and gone at the end, so
that a saved notebook holds none of it. Where nothing can be rewritten (a log file, a batch system) it is a
line every 15 seconds. In a notebook that `synthtune.run.notebook_runner` executes it goes over a socket to
the terminal of whoever started the runner, or the run that the runner belongs to.
"""

import contextlib
import io
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

# Least time between two lines where a bar cannot be redrawn.
LINE_SECONDS = 15.0

# Least time between two states of a bar in Jupyter or over a socket.
REDRAW_SECONDS = 0.5

# A bar where none can be drawn.
IN_WORDS = "{desc}: {percentage:.0f} % ({n_fmt} of {total_fmt}), {remaining} left{postfix}"

# Environment variable of a notebook's kernel: the socket on which somebody shows its bars.
SOCKET = "SYNTHTUNE_PROGRESS"

# Beside it, what the notebook is called there.
LABEL = "SYNTHTUNE_NOTEBOOK"


class progress(tqdm):
    """Show how far a loop is and how long it still takes: a tqdm bar whose drawing goes to where the reader is looking.

    Parameters
    ----------
    iterable : iterable, optional
        What to loop over; without it, call ``update(n)`` and ``close()``, or use it in ``with``. ``set_postfix_str`` adds a word,
        a loss for example.
    desc : str
        What the loop does, a verb and its object.
    total : int, optional
        Number of steps, where `iterable` has no length.
    unit : str
        What one step is; "B" prints kB, MB.
    """

    def __init__(self, iterable: Iterable | None = None, desc: str = "", total: int | None = None, unit: str = "example"):
        self._draw, seconds = _surface()
        super().__init__(
            iterable, desc, total, leave=False, unit=f" {unit}" if unit != "B" else unit, unit_scale=unit == "B",
            disable="TQDM_DISABLE" in os.environ,  # tqdm itself asks when it is imported, before a process knows that it has no bars
            dynamic_ncols=True,
            mininterval=seconds,
            bar_format=IN_WORDS if self._draw and (total or iterable is not None) else None,
            file=io.StringIO() if self._draw else None,  # where there is no terminal its control characters are dropped
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar as it stands, or `msg`, which is empty at the end."""
        if self._draw is None:
            return super().display(msg, pos)
        self._draw(str(self) if msg is None else msg)
        return True


def duration(seconds: float) -> str:
    """Seconds as "45 s", "1 min 10 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def report(address: str, label: str, event: str, **more: Any) -> None:
    """Tell the `synthtune.run.board.Board` at a socket what becomes of a notebook; nothing happens if it is gone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(event != "bar")  # if the board is busy it misses a state: the loop never waits for it
        sender.sendto(json.dumps({"label": label, "event": event, **more}).encode(), address)


def _surface() -> tuple[Callable[[str], None] | None, float]:
    """What draws the text of a bar made now, and how often; None is a terminal, where tqdm draws by itself."""
    if SOCKET in os.environ:
        address, label = os.environ[SOCKET], os.environ.get(LABEL, "")
        return lambda text: report(address, label, "bar", text=text), REDRAW_SECONDS
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        if get_ipython() is not None and hasattr(get_ipython(), "kernel"):
            return _Jupyter(), REDRAW_SECONDS
    if sys.stderr is None or not sys.stderr.isatty():
        return _Lines(sys.stderr), LINE_SECONDS
    return None, 0.1


class _Jupyter:
    """A line of output that is rewritten in place."""

    def __init__(self) -> None:
        self._handle = None

    def __call__(self, text: str) -> None:
        from IPython.display import display

        if self._handle is not None:
            self._handle.update({"text/plain": text}, raw=True)
        elif text:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)


class _Lines:
    """A stream that keeps every line."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._next = stream, time.monotonic() + LINE_SECONDS

    def __call__(self, text: str) -> None:
        if text and self._stream is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            print(text, file=self._stream, flush=True)


class Screen:
    """What a person sees of notebooks at once: finished lines above, one changing line each below.

    It draws on standard error. Where that is no terminal, a state is printed at most every 15 seconds.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._lines: dict[str, tqdm | _Lines] = {}

    def say(self, line: str) -> None:
        """Print a line that stays."""
        tqdm.write(line, file=self._stream)

    def show(self, key: str, text: str) -> None:
        """Show how far something is, replacing what `key` showed before."""
        if not self._terminal:
            self._lines.setdefault(key, _Lines(self._stream))(f"    {key} · {text}")
            return
        if key not in self._lines:
            self._lines[key] = tqdm(bar_format="    {desc}", file=self._stream, leave=False, dynamic_ncols=True)
        self._lines[key].set_description_str(f"{key} · {text}")

    def forget(self, key: str) -> None:
        """Remove the changing line of `key`."""
        line = self._lines.pop(key, None)
        if isinstance(line, tqdm):
            line.close()

    def close(self) -> None:
        """Remove every changing line."""
        for key in list(self._lines):
            self.forget(key)
