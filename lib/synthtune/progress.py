"""Progress of long loops: how far, how fast, how long still, wherever the loop runs.

In a terminal it is a tqdm bar. In Jupyter it is one line of text that is rewritten and gone at the end, so
that a saved notebook holds none of it. Where nothing can be rewritten (a log file, a batch system) it is a
line every 15 seconds. In a notebook that `synthtune.run.notebook_runner` executes it goes to the runner over a
socket, and from there to the terminal of whoever started it; ``SYNTHTUNE_PROGRESS`` holds the path of that
socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LINE_SECONDS = 15.0
"""Least time between two lines where a bar cannot be redrawn."""

REDRAW_SECONDS = 0.5
"""Least time between two states of a bar in Jupyter or over a socket."""


class Bar(tqdm):
    """A tqdm bar whose drawing goes to where the reader is looking.

    Give it `desc`, `total` and `unit`, and an iterable or calls of ``update``; ``set_postfix_str`` adds a
    word, a loss for example. It removes itself when done.
    """

    def __init__(self, iterable: Iterable | None = None, *, desc: str, total: int | None, unit: str):
        self._surface = _surface()
        super().__init__(
            iterable,
            desc=desc,
            total=total,
            unit=f" {unit}" if unit.isalpha() and unit != "B" else unit,
            unit_scale=unit == "B",
            leave=False,
            dynamic_ncols=True,
            gui=self._surface is not None,
            mininterval=self._surface.seconds if self._surface else 0.1,
            delay=LINE_SECONDS if isinstance(self._surface, _Lines) else 0,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar as it stands."""
        if self._surface is None:
            return super().display(msg, pos)
        self._surface.show(self)
        return True

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar from a terminal; elsewhere there is nothing in the way."""
        if self._surface is None:
            super().clear(nolock)

    def close(self) -> None:
        """Remove the bar for good."""
        if self._surface is None:
            super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)
            self._surface.done()

    def state(self) -> dict[str, Any]:
        """The bar as sent to the runner: desc, n, total, unit, seconds, left (None if unknown)."""
        shown = self.format_dict
        rate = shown["rate"] or (shown["n"] - shown["initial"]) / shown["elapsed"] if shown["elapsed"] else 0
        left = (shown["total"] - shown["n"]) / rate if shown["total"] and rate else None
        return {
            "desc": self.desc.removesuffix(": "),
            "n": shown["n"],
            "total": shown["total"],
            "unit": self.unit.strip(),
            "seconds": shown["elapsed"],
            "left": left,
            "postfix": self.postfix or "",
        }


def progress(
    iterable: Iterable[T] | None = None, desc: str = "", total: int | None = None, unit: str = "example"
) -> Bar | Iterable[T]:
    """Show how far a loop is and how long it still takes.

    Parameters
    ----------
    iterable : iterable, optional
        What to loop over; without it, call ``update(n)`` and ``close()`` on what is returned, or use it in
        ``with``.
    desc : str
        What the loop does, a verb and its object.
    total : int, optional
        Number of steps, where `iterable` has no length.
    unit : str
        What one step is; "B" prints kB, MB.

    Returns
    -------
    Bar
        Iterates over `iterable`.
    """
    return Bar(iterable, desc=desc, total=total, unit=unit)


def describe(state: dict[str, Any]) -> str:
    """One line from a bar's state: what, percent, count, time left."""
    size = (lambda n: tqdm.format_sizeof(n, divisor=1000)) if state["unit"] == "B" else (lambda n: f"{n:,}")
    parts = [state["desc"]] if state["desc"] else []
    if state["total"]:
        parts.append(
            f"{100 * state['n'] / state['total']:.0f} % ({size(state['n'])} of {size(state['total'])})"
        )
    else:
        parts.append(f"{size(state['n'])} {state['unit']}")
    if state["left"] is not None:
        parts.append(f"{duration(state['left'])} left")
    return " · ".join(parts + ([state["postfix"]] if state["postfix"] else []))


def duration(seconds: float) -> str:
    """Seconds as "45 s", "1 min 10 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _surface() -> _Socket | _Jupyter | _Lines | None:
    """Where a bar made now is drawn; None is a terminal, which tqdm draws on itself."""
    path = os.environ.get("SYNTHTUNE_PROGRESS")
    if path:
        with contextlib.suppress(OSError):
            return _Socket(path)
    if "ipykernel" in sys.modules:
        from IPython import get_ipython

        if get_ipython() is not None and hasattr(get_ipython(), "kernel"):
            return _Jupyter()
    if sys.stderr is None or not sys.stderr.isatty():
        return _Lines()
    return None


class _Socket:
    """The runner of this notebook, which draws."""

    seconds = REDRAW_SECONDS

    def __init__(self, path: str):
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._connection.connect(path)
        self._connection.setblocking(
            False
        )  # a runner that is busy misses a state; the loop never waits for it

    def show(self, bar: Bar) -> None:
        self._send({"bar": id(bar), **bar.state()})

    def done(self) -> None:
        self._send({"done": True})
        self._connection.close()

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(json.dumps(message).encode())


class _Jupyter:
    """A line of output that is rewritten in place."""

    seconds = REDRAW_SECONDS

    def __init__(self) -> None:
        self._handle = None

    def show(self, bar: Bar) -> None:
        self._draw(describe(bar.state()))

    def done(self) -> None:
        if self._handle is not None:
            self._draw("")

    def _draw(self, text: str) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)


class _Lines:
    """A stream that keeps every line."""

    seconds = LINE_SECONDS

    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_SECONDS

    def show(self, bar: Bar) -> None:
        if time.monotonic() >= self._next and sys.stderr is not None:
            self._next = time.monotonic() + LINE_SECONDS
            print(describe(bar.state()), file=sys.stderr, flush=True)

    def done(self) -> None:
        pass


class Screen:
    """What a person sees of notebooks at once: finished lines above, one changing line each below.

    Parameters
    ----------
    stream : text stream, optional
        Standard error by default. Where it is no terminal, a state is printed at most every 15 seconds.
    """

    def __init__(self, stream=None):
        self._stream = stream or sys.stderr
        self._lines: dict[str, tqdm] = {}
        self._printed: dict[str, float] = {}
        self._terminal = self._stream.isatty()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self._terminal:
            tqdm.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def show(self, key: str, state: dict[str, Any]) -> None:
        """Show the state of a bar, replacing what `key` showed before."""
        text = f"{key} · {describe(state)}"
        if not self._terminal:
            now = time.monotonic()
            if now >= self._printed.setdefault(key, now + LINE_SECONDS):
                self._printed[key] = now + LINE_SECONDS
                print(f"    {text}", file=self._stream, flush=True)
            return
        if key not in self._lines:
            self._lines[key] = tqdm(
                bar_format="    {desc}", file=self._stream, leave=False, dynamic_ncols=True
            )
        self._lines[key].set_description_str(text)

    def forget(self, key: str) -> None:
        """Remove the changing line of `key`."""
        self._printed.pop(key, None)
        line = self._lines.pop(key, None)
        if line is not None:
            line.close()

    @contextlib.contextmanager
    def closing(self) -> Iterator[Screen]:
        """Remove every changing line at the end, whatever happened."""
        try:
            yield self
        finally:
            for key in list(self._lines):
                self.forget(key)
