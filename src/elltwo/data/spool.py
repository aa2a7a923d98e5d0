"""Rows that can be read only once, or in no promised order, kept in a temporary Parquet file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from elltwo.data.reading import Table


def spooled(write: Callable[[Path], None], open_: Callable[[Path], Table]) -> Table:
    """Write a temporary file and open it; it is removed with the table, or at once if writing fails."""
    handle, name = tempfile.mkstemp(prefix="elltwo-", suffix=".parquet")
    os.close(handle)
    path = Path(name)
    try:
        write(path)
        table = open_(path)
    except BaseException:
        path.unlink()
        raise
    weakref.finalize(table, path.unlink, missing_ok=True)
    return table
