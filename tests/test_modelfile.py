"""A model file comes back exactly, is written whole or not at all, and is refused when it is not right."""

import errno
import json
import os
import pickle
import stat
import struct

import numpy as np
import pytest
from safetensors.numpy import save

import elltwo
from elltwo import __version__, files, modelfile
from elltwo.errors import InputError, ModelFileError

ARRAYS = {
    "coef": np.array([[1.5, -2.25], [1e-300, 3e200], [0.0, -0.0]]),
    "intercept": np.array([0.1, 1 / 3]),
    "chosen": np.array([3, 4]),
    "mask": np.array([True, False]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 2)),
}
METADATA = {
    "rule": "loo",
    "names": ["größe", "価格", "a\nb"],
    "third": 1 / 3,
    "nested": {"z": None, "a": [1, True, "x"]},
}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    modelfile.write(path, ARRAYS, METADATA)
    return path


def test_arrays_and_metadata_come_back_bit_for_bit(model):
    arrays, metadata = modelfile.read(model)
    assert metadata == METADATA
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("layout", ["F", "strided", "readonly", "big-endian"])
def test_any_memory_layout_is_stored_alike(tmp_path, layout):
    values = np.arange(12.0).reshape(3, 4)
    array = {
        "F": np.asfortranarray(values),
        "strided": np.repeat(values, 2, axis=1)[:, ::2],
        "readonly": values.copy(),
        "big-endian": values.astype(">f8"),
    }[layout]
    array.flags.writeable = layout != "readonly"
    modelfile.write(tmp_path / "m", {"a": array}, {})
    assert np.array_equal(modelfile.read(tmp_path / "m")[0]["a"], values)


def test_writing_twice_gives_the_same_bytes(tmp_path, model):
    modelfile.write(tmp_path / "again", dict(reversed(ARRAYS.items())), METADATA)
    assert (tmp_path / "again").read_bytes() == model.read_bytes()


def test_json_without_nan_is_insisted_on(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        modelfile.write(tmp_path / "m", {}, {"condition": float("inf")})
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused(model, tmp_path):
    whole = model.read_bytes()
    cut = tmp_path / "cut"
    for length in [0, 1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"is (truncated or damaged|empty|not a model file)"):
            modelfile.read(cut)


def test_every_flipped_byte_is_refused(model, tmp_path):
    whole = model.read_bytes()
    damaged = tmp_path / "damaged"
    start = len(whole) - sum(a.nbytes for a in ARRAYS.values())
    for position in [*range(start, len(whole), 3), *range(8, start, 2)]:
        data = bytearray(whole)
        data[position] ^= 0b1
        damaged.write_bytes(data)
        with pytest.raises(ModelFileError):
            modelfile.read(damaged)


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n3,4\n",
        b"PAR1" + bytes(100),
        pickle.dumps({"coef": [1.0]}),
        b"PK\x03\x04" + bytes(100),
        b"\xff" * 64,
        b"{}",
    ],
)
def test_a_foreign_file_is_refused_with_a_remedy(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"foreign' is not a model file.*elltwo fit … -o FILE"):
        modelfile.read(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_another_program_is_refused(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(save({"weight": np.ones(3)}, metadata))
    with pytest.raises(ModelFileError, match="elltwo did not write"):
        modelfile.read(path)


def test_a_newer_format_is_refused_and_says_to_upgrade(tmp_path):
    path = tmp_path / "newer.safetensors"
    header = {"format": modelfile.FORMAT + 1, "elltwo": "99.0", "anything": "else"}
    path.write_bytes(save({"a": np.ones(3)}, {"elltwo": json.dumps(header)}))
    with pytest.raises(
        ModelFileError, match=rf"elltwo 99\.0 in format 2; this is elltwo {__version__}.*Upgr"
    ):
        modelfile.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1, 2]",
        "null",
        '{"format": 1}',
        '{"format": "1", "model": {}, "digest": ""}',
        '{"format": 0, "model": {}, "digest": ""}',
        '{"format": 1, "model": [], "digest": ""}',
        '{"format": 1, "model": {"x": NaN}, "digest": ""}',
        "[" * 100_000,
    ],
)
def test_metadata_that_is_not_ours_is_refused(tmp_path, text):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(save({"a": np.ones(3)}, {"elltwo": text}))
    with pytest.raises(ModelFileError, match="Fit the model again"):
        modelfile.read(path)


def test_an_edited_file_is_refused(tmp_path, model):
    whole = model.read_bytes()
    edited = whole.replace(b'\\"rule\\": \\"loo\\"', b'\\"rule\\": \\"gcv\\"')
    assert edited != whole
    model.write_bytes(edited)
    with pytest.raises(ModelFileError, match="damaged or edited"):
        modelfile.read(model)


def test_a_header_that_promises_more_than_there_is_does_not_allocate_it(tmp_path):
    header = json.dumps({"a": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}).encode()
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        modelfile.read(path)


def test_a_missing_model_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="There is no model file"):
        modelfile.read(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        modelfile.read(tmp_path)


# --------------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", [True, False])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, old):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        def __init__(self, *args):
            self.file = open(*args)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        write = full

    path = tmp_path / "model.safetensors"
    if old:
        path.write_bytes(b"old")
    if step == "write":
        monkeypatch.setattr(files, "open", Full, raising=False)
    else:
        monkeypatch.setattr(os, step, full)
    kept = "The old file is unchanged" if old else "No file was left behind"
    with pytest.raises(
        InputError, match=rf"Cannot write '.*model\.safetensors': No space left.*Free.*{kept}"
    ):
        modelfile.write(path, ARRAYS, METADATA)
    assert [p.name for p in tmp_path.iterdir()] == (["model.safetensors"] if old else [])
    assert not old or path.read_bytes() == b"old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_write_leaves_nothing(tmp_path, error):
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")

    def interrupted():
        with files.replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_does_not_exist_is_named_with_the_nearest_one(tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(
        InputError, match=r"folder '.*modles' does not exist\. Did you mean 'models'\? Create"
    ):
        modelfile.write(tmp_path / "modles" / "m.safetensors", {}, {})


def test_folders_and_devices_are_not_replaced(tmp_path):
    with pytest.raises(InputError, match="it is a folder"):
        modelfile.write(tmp_path, {}, {})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not an ordinary file"):
        modelfile.write(tmp_path / "pipe", {}, {})


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    target, link = tmp_path / "real", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    modelfile.write(link, ARRAYS, METADATA)
    assert link.is_symlink()
    assert modelfile.read(target)[1] == METADATA
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path, model):
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(model.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_changed_bit_at_the_end_of_a_large_array_is_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    modelfile.write(path, {"a": np.ones(12_500)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged or edited"):
        modelfile.read(path)


DAMAGES = {
    "no coefficients": lambda arrays, _: arrays.pop(next(n for n in arrays if n.endswith("coef"))),
    "arrays of one number": lambda arrays, _: arrays.update({n: np.zeros(1) for n in arrays}),
    "arrays of no number": lambda arrays, _: arrays.update({n: np.zeros(0) for n in arrays}),
    "nothing": lambda arrays, metadata: (arrays.clear(), metadata.clear()),
    "text in place of everything": lambda _, metadata: metadata.update(dict.fromkeys(metadata, "x")),
    "lists in place of everything": lambda _, metadata: metadata.update({k: [1] for k in metadata}),
    "another encoder": lambda _, metadata: metadata.update(encoder={"columns": 3}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_parts_that_do_not_fit_together_are_refused_by_name(tmp_path, damage):
    """The file is whole and its digest right: only its contents are not those of a model."""
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    elltwo.fit({"x": rng.normal(size=9), "y": rng.normal(size=9)}, "y", alpha=1.0).save(path)
    arrays, metadata = modelfile.read(path)
    damage(arrays, metadata)
    modelfile.write(path, arrays, metadata)
    with pytest.raises(ModelFileError, match=r"m\.safetensors' is damaged, or something else"):
        elltwo.load(path)
