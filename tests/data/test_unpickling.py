"""Pickles as data: what the published files hold is read, anything else refused, nothing executed."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from robustdml.data.errors import DataError
from robustdml.data.unpickling import read_pickle
from tests.data.fakes import python_2, rows


def written(tmp_path, value, protocol=2):
    path = tmp_path / "batch"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


CONTENT = {"labels": [1, 2], "data": rows(2), "filenames": ["a.png", "ö.png"], "label": "batch 1 of 5"}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_this_python_writes_is_read(tmp_path, protocol):
    found = read_pickle(written(tmp_path, CONTENT, protocol))
    assert torch.equal(found.pop("data"), torch.from_numpy(CONTENT["data"]))
    assert found == {k: v for k, v in CONTENT.items() if k != "data"}


def test_what_python_2_wrote_is_read(tmp_path):
    data = python_2(CONTENT)
    assert np.array_equal(pickle.loads(data, encoding="latin1")["data"], CONTENT["data"])
    found = read_pickle(written(tmp_path, data))
    assert torch.equal(found.pop("data"), torch.from_numpy(CONTENT["data"]))
    assert found == {k: v for k, v in CONTENT.items() if k != "data"}


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark, function=os.mkdir):
        self.mark, self.function = mark, function

    def __reduce__(self):
        return self.function, (str(self.mark),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"data": e}, lambda e: {"labels": [e], "data": rows(1)}])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path, protocol, wrap):
    mark = tmp_path / "mark"
    data = pickle.dumps(wrap(Evil(mark)), protocol)
    with pytest.raises(DataError, match=r"batch was refused: .*mkdir.* Nothing in it was executed"):
        read_pickle(written(tmp_path, data))
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists(), "the pickle of this test must be dangerous"


def raw(*opcodes):
    return b"\x80\x02" + b"".join(opcodes) + b"."


@pytest.mark.parametrize(
    "data",
    [
        raw(b"cos\nsystem\n(X\x04\x00\x00\x00exitR"),
        raw(b"(cos\nsystem\nX\x04\x00\x00\x00exito"),
        raw(b"(X\x04\x00\x00\x00exitios\nsystem\n"),
        raw(b"cbuiltins\ngetattr\n"),
        raw(b"cnumpy.core.multiarray\nscalar\n"),
        raw(b"cnumpy\nload\n"),
        raw(b"X\x01\x00\x00\x00xQ"),
        raw(b"\x82\x01"),
    ],
    ids=["reduce", "object", "instance", "getattr", "scalar", "load", "persistent", "extension"],
)
def test_no_opcode_reaches_a_function(tmp_path, data):
    with pytest.raises(DataError, match=r"was refused|is damaged"):
        read_pickle(written(tmp_path, data))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "holds list, expected a dictionary"),
        ({"data": np.zeros((2, 3), np.float32)}, "not one of bytes in C order"),
        ({"data": np.zeros((2, 3), np.uint8, order="F")[:, ::1].copy(order="F")}, "not one of bytes in C order"),
        ({"data": np.array([{}], dtype=object)}, "not one of bytes in C order"),
    ],
    ids=["list", "floats", "fortran", "objects"],
)
def test_other_content_is_refused(tmp_path, value, said):
    with pytest.raises(DataError, match=said):
        read_pickle(written(tmp_path, value))


def test_an_array_must_be_as_long_as_it_says(tmp_path):
    data = python_2({"data": rows(2)})
    announced = b"(J" + struct.pack("<i", 2) + b"J" + struct.pack("<i", 3072)
    assert announced in data
    with pytest.raises(DataError, match=r"6144 bytes that announces the shape \(3, 3072\)"):
        read_pickle(written(tmp_path, data.replace(announced, b"(J" + struct.pack("<i", 3) + announced[6:])))


def test_damaged_and_missing_files_are_named(tmp_path, monkeypatch):
    data = python_2(CONTENT)
    for part in (data[:-2000], b"", b"text", data[1000:]):
        with pytest.raises(DataError, match=r"batch (is damaged|was refused|holds)"):
            read_pickle(written(tmp_path, part))
    with pytest.raises(DataError, match="none cannot be read"):
        read_pickle(tmp_path / "none")
    monkeypatch.setattr("robustdml.data.unpickling.LARGEST", 100)
    with pytest.raises(DataError, match="such a file is not read"):
        read_pickle(written(tmp_path, data))
