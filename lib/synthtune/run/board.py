"""What a run and the runners of its notebooks share: names, a folder for sockets, and the board that shows how far they are."""

import contextlib
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthtune.progress import Screen, duration, report

# Environment variable of a runner that belongs to a run: the run's folder of sockets. Its standard input ends with the run.
RUN = "SYNTHTUNE_RUN"

# The socket of the run's board, in that folder.
BOARD = "b"

# Longest folder that leaves room for the sockets in it; every system takes 100 characters.
SOCKET_FOLDER_LIMIT = 85

# How long a board waits for its last message; none arrives if somebody has deleted the folder of the socket.
CLOSE_SECONDS = 5


def label(notebook: str, parameters: dict[str, Any]) -> str:
    """Name a notebook and what it is about, as "02_annotate · tweets · budget 125"."""
    more = [f"{word}{parameters[name]}" for name, word in (("task", ""), ("budget", "budget ")) if name in parameters]
    return " · ".join([notebook, *more])


@contextlib.contextmanager
def socket_folder(parent: Path | str | None) -> Iterator[Path]:
    """A folder for sockets, gone at the end: in `parent`, or in /tmp if that would be too long a path for them."""
    folder = Path(tempfile.mkdtemp(prefix=".work.", dir=parent))  # a name that `files.remove_left_over` knows
    if len(str(folder)) > SOCKET_FOLDER_LIMIT:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="synthtune-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Board:
    """Shows what notebooks report: numbers them as they start, draws their bars, says what is left.

    Parameters
    ----------
    path : Path
        The socket to listen on, see `synthtune.progress.report`.
    screen : Screen
    work : dict of str to float
        How much work each notebook that will report is beside the others, by its label.
    side_by_side : int
        How many at once.
    """

    def __init__(self, path: Path, screen: Screen, work: dict[str, float], side_by_side: int = 1):
        self._path, self._screen, self._side_by_side = str(path), screen, side_by_side
        self._waiting, self._total = dict(work), len(work)
        self._seconds, self._work = 0.0, 0.0  # of those that are done
        self._began: dict[str, float] = {}  # when each was first heard of
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show what has been reported until now, and nothing more."""
        report(self._path, "", "closed")
        self._thread.join(CLOSE_SECONDS)
        self._socket.close()

    def _listen(self) -> None:
        while (message := json.loads(self._socket.recv(1 << 16)))["event"] != "closed":
            self._take(**message)

    def _take(self, label: str, event: str, text: str = "", seconds: float = 0.0) -> None:
        self._began.setdefault(label, time.monotonic())
        key = f"[{list(self._began).index(label) + 1}/{self._total}] {label}" if self._total > 1 else label
        if event == "started":
            self._screen.say(key)
        elif event == "bar" and text:
            self._screen.show(key, text)
        else:
            self._screen.forget(key)
        if event == "done":
            self._work += self._waiting.pop(label, 0.0)
            self._seconds += seconds
            left = self._left()
            self._screen.say(f"{key}: done in {duration(seconds)}" + (f"; about {duration(left)} left" if left else ""))
        elif event == "failed":
            self._screen.say(f"{key}: failed")

    def _left(self) -> float:
        """Seconds that the notebooks still to finish will take, going by how long the work that is done has taken."""
        now, each = time.monotonic(), self._seconds / (self._work or 1.0)
        left = (work * each - (now - self._began.get(label, now)) for label, work in self._waiting.items())
        return sum(max(0.0, seconds) for seconds in left) / self._side_by_side
