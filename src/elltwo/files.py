"""Files are written whole or not at all: the one place that puts a file on disk."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from elltwo.errors import InputError, did_you_mean

_TEMPORARY = re.compile(r"\.elltwo-[0-9a-f]{16}\.tmp")
_FORBIDDEN = "You may not write there: choose another folder."
_REMEDIES = {  # only what writing can run into: an error while reading inside the block passes through
    errno.ENOSPC: "Free some space on that disk or write to another one.",
    errno.EDQUOT: "Your disk quota is used up: delete some files or write to another disk.",
    errno.EFBIG: "The file would pass the size limit that is set for you: write to another disk or raise it.",
    errno.EROFS: "The disk is mounted read-only: write to another folder.",
    errno.EPERM: _FORBIDDEN,
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


def named(path: str | os.PathLike[str]) -> Path:
    """Return the path that a user means: ``~`` and ``~user`` stand for home folders.

    Raises
    ------
    InputError
        The name is none that a file can have here.

    Examples
    --------
    >>> named("data/houses.csv").as_posix()
    'data/houses.csv'
    """
    text = os.path.expanduser(os.fspath(path))
    if "\0" in text:
        raise InputError(f"{text!r} is no name of a file: it holds a null character. Leave it out.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The name {text!a} is not UTF-8 text, and a file so named cannot be opened here. Rename it "
            "(mv, or convmv for many)."
        ) from None
    return Path(text)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return the path to write to, symbolic links resolved, or say why no file can be written there.

    Called before long work, so that a mistyped folder costs seconds and not the result.

    Parameters
    ----------
    path : str or path
        The file that is going to be written.

    Raises
    ------
    InputError
        The folder does not exist, the path is a folder or a device, or writing is not permitted.

    Examples
    --------
    >>> check_writable("no-such-folder/model.safetensors")
    Traceback (most recent call last):
    elltwo.errors.InputError: Cannot write 'no-such-folder/model.safetensors': the folder 'no-such-folder' \
does not exist. Create it first, or choose another folder.
    """
    target = Path(os.path.realpath(named(path)))
    folder = target.parent
    if not folder.is_dir():
        shown = os.path.dirname(os.fspath(path)) or str(folder)
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise InputError(
            f"Cannot write '{path}': the folder '{shown}' does not exist."
            f"{did_you_mean(folder.name, siblings)} Create it first, or choose another folder."
        )
    if target.is_dir():
        raise InputError(f"Cannot write '{path}': it is a folder. Give the name of a file.")
    if target.exists() and not target.is_file():
        raise InputError(f"Cannot write '{path}': it is not an ordinary file. Give the name of a file.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"Cannot write '{path}': {_FORBIDDEN}")
    return target


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Mark an open temporary file as in use, until it is closed; False if that cannot be done."""
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # no such marks on this system, or somebody else's
        return False
    return True


def _remove_stale(folder: Path) -> None:
    """Remove the temporary files of processes that were killed: ours by name, and in nobody's use."""
    for path in folder.glob(".elltwo-*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with suppress(OSError), open(path, "r+b") as file:
                if _lock(file, wait=False):
                    path.unlink()


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new temporary file that is in use until the end, also after it is closed; then remove it."""
    while True:
        path = folder / f".elltwo-{secrets.token_hex(8)}.tmp"
        file = open(path, "xb")  # noqa: SIM115
        held = os.dup(file.fileno()) if _lock(file, wait=True) else None
        try:
            if held is None or path.exists():  # else somebody took it for a stale one before it was marked
                yield path, file
                return
        finally:
            file.close()
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if held is not None:
                os.close(held)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends without an error.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and renamed
    over `path`. If anything fails, or the program is interrupted, the temporary file is removed
    and what stood at `path` before is left as it was.

    Parameters
    ----------
    path : str or path
        The file to write or replace.

    Yields
    ------
    binary file, open for writing

    Raises
    ------
    InputError
        The file cannot be written: no such folder, no permission, disk full.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"all of it")
    >>> path.read_bytes()
    b'all of it'
    """
    target = check_writable(path)
    _remove_stale(target.parent)
    try:
        with _temporary(target.parent) as (temporary, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        kept = "The old file is unchanged." if target.exists() else "No file was left behind."
        raise InputError(f"Cannot write '{path}': {error.strerror or error}. {remedy} {kept}") from error
