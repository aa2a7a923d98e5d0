"""The model file: arrays and plain JSON in one safetensors file, in which nothing can be executed.

A file holds named arrays and, under the metadata key ``elltwo``, one JSON object

    {"format": 1, "elltwo": "<version that wrote it>", "model": {…}, "digest": "<SHA-256>"}

where `digest` covers the arrays and the rest of the object, so damage and edits are noticed.
Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON header, raw numbers).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from elltwo import __version__
from elltwo.errors import InputError, ModelFileError
from elltwo.files import named, replacing

Array = npt.NDArray[Any]

FORMAT = 1
"""Raised when an older elltwo could no longer read what this one writes."""

_KEY = "elltwo"


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write arrays and plain JSON values to a model file, whole or not at all.

    Parameters
    ----------
    path : str or path
        The file to write; an old one is replaced only once the new one is safely on disk.
    arrays : mapping of str to array
        Any shapes; numbers or booleans.
    metadata : mapping
        Strict JSON values: str, int, finite float, bool, None, and lists and mappings of them.

    Raises
    ------
    InputError
        The file cannot be written: no such folder, no permission, disk full.
    ValueError
        `metadata` holds NaN or infinity, which JSON does not know.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> write(path, {"coef": np.array([1.0, 2.0])}, {"features": ["a", "b"]})
    >>> read(path)
    ({'coef': array([1., 2.])}, {'features': ['a', 'b']})
    """
    from safetensors.numpy import save

    stored = {name: _as_stored(array) for name, array in arrays.items()}
    header = {"format": FORMAT, "elltwo": __version__, "model": metadata}
    content = save(stored, {_KEY: json.dumps(header | {"digest": _digest(stored, header)}, sort_keys=True)})
    with replacing(path) as file:
        file.write(content)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a model file back: exactly what `write` was given (tuples come back as lists).

    Nothing in the file is executed: it is numbers and text.

    Raises
    ------
    InputError
        There is no such file.
    ModelFileError
        The file is truncated or damaged, is not a model file of elltwo, or was written by a newer version.

    Examples
    --------
    >>> read("no-such-model.safetensors")
    Traceback (most recent call last):
    elltwo.errors.InputError: There is no model file 'no-such-model.safetensors'. Check the spelling and \
the folder; `elltwo fit … -o FILE` writes one.
    """
    from safetensors import SafetensorError, safe_open

    path = named(path)
    _check_is_safetensors(path)
    try:
        with safe_open(os.fspath(path), framework="np") as file:
            header = _header(path, file.metadata())
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        _refuse(path, f"is truncated or damaged ({error})", "Copy it again, or fit the model again.")
    if header.pop("digest") != _digest(arrays, header):
        _refuse(path, "was damaged or edited after it was written", "Copy it again, or fit the model again.")
    return arrays, header["model"]


def _check_is_safetensors(path: str | os.PathLike[str]) -> None:
    """Refuse anything that does not begin with a header length and an opening brace."""
    if Path(path).is_dir():
        raise InputError(f"'{path}' is a folder. Give the model file inside it.")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise InputError(
            f"There is no model file '{path}'. Check the spelling and the folder; "
            "`elltwo fit … -o FILE` writes one."
        ) from None
    except PermissionError:
        raise InputError(f"'{path}' may not be read by you. Change its permissions.") from None
    if not start:
        _refuse(path, "is empty", "Copy it again, or fit the model again.")
    if start[8:] != b"{":
        _refuse(
            path,
            "is not a model file (models of elltwo are safetensors files)",
            "Give the file that `elltwo fit … -o FILE` or `Fit.save` wrote.",
        )


def _header(path: str | os.PathLike[str], metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Return our JSON object, once its format is known to be one that this version reads."""
    if not metadata or _KEY not in metadata:
        _refuse(
            path,
            "is a safetensors file that elltwo did not write",
            "Give the file that `elltwo fit … -o FILE` or `Fit.save` wrote.",
        )
    try:
        header = json.loads(metadata[_KEY], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"holds metadata that is not JSON ({error})", "Fit the model again.")
    version = header.get("format") if isinstance(header, dict) else None
    if isinstance(version, int) and version > FORMAT:
        _refuse(
            path,
            f"was written by elltwo {header.get('elltwo')} in format {version}; "
            f"this is elltwo {__version__}, which reads formats up to {FORMAT}",
            "Upgrade with `pip install --upgrade elltwo`.",
        )
    if version != FORMAT or not isinstance(header.get("model"), dict) or "digest" not in header:
        _refuse(path, "lacks a part that every model file has", "Fit the model again.")
    return dict(header)


def _as_stored(array: Array) -> Array:
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _digest(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, allow_nan=False).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"the number {name} is not JSON")


def _refuse(path: str | os.PathLike[str], cause: str, remedy: str) -> NoReturn:
    raise ModelFileError(f"'{path}' {cause}. {remedy}")
