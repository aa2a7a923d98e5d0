"""A progress bar on stderr for long work; nothing where stderr is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int | None], None]

PATIENCE = 1.0
"""Seconds of work before a bar appears."""


@contextmanager
def progress(what: str) -> Iterator[Progress | None]:
    """Give a callback (rows read so far, their total or None) that draws a bar; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(what)
    try:
        yield bar
    finally:
        bar.stop()


class _Bar:
    """A bar that appears after a moment and begins anew with every pass over the rows."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since = time.monotonic()
        self._pass = 1
        self._rows = 0
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, rows: int, total: int | None) -> None:
        if rows < self._rows:
            self._pass += 1
        self._rows = rows
        if self._bar is None:
            if time.monotonic() - self._since < PATIENCE:
                return
            self._start()
        self._bar.update(
            self._task, completed=rows, total=total, description=f"{self._what}, pass {self._pass}"
        )

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,} rows"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._what, total=None)
        self._bar.start()

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
