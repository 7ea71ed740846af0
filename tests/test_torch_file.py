"""A ``torch.save`` file is read without running anything of it; whatever asks for more is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.torch_file import Foreign, TorchFile
from hypothesis import given, settings
from hypothesis import strategies as st

MARK = Path("/tmp") / f"dexloop-test-{os.getpid()}"  # what a malicious pickle would make


@pytest.fixture(autouse=True)
def nothing_ran() -> Any:
    yield
    assert not MARK.exists()


class Calls:
    """Pickles into a call of ``function(*args)``."""

    def __init__(self, function: object, *args: object, state: object = None) -> None:
        self._what = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self._what


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def with_pickle(path: Path, program: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A file of the same layout whose pickle is ``program``."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/byteorder", b"little")
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
    return path


def tensor_program(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], numbers: int = 4) -> bytes:
    """The pickle of one float tensor with these arguments."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", numbers) if value == "here" else None

    out = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    Pickler(out, 2).dump({"x": Calls(rebuild, "here", offset, shape, strides, False, OrderedDict())})
    return out.getvalue()


def test_tensors_come_back(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    wanted = {
        "plain": whole,
        "turned": whole.T,
        "cut": whole[1:3, ::2],
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0),
        "wide": torch.randn(1, 3).expand(5, 3).contiguous(),
        "half": torch.randn(3).half(),
        "bf16": torch.randn(3).bfloat16(),
        "count": torch.tensor([2**60]),
        "yes": torch.tensor([True, False]),
    }
    layer = torch.nn.Linear(3, 2)
    content = {"t": OrderedDict(wanted), "layer": layer.state_dict(), "parameter": layer.weight, "bytes": b"\x00\xff"}
    file = TorchFile(saved(tmp_path / "a.ckpt", content))
    assert file.content["bytes"] == b"\x00\xff"
    for name, tensor in wanted.items():
        assert torch.equal(file.tensor(file.content["t"][name], name), tensor)
    assert torch.equal(file.tensor(file.content["layer"]["bias"], "bias"), layer.bias)
    assert torch.equal(file.tensor(file.content["parameter"], "weight"), layer.weight)


def test_foreign_objects_become_nothing(tmp_path: Path) -> None:
    class Node:  # looks like a class of the configuration library
        def __init__(self) -> None:
            self.content = {"a": 1, "resolvers": defaultdict(dict)}

    Node.__module__, Node.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    out = io.BytesIO()
    pickler = pickle._Pickler(out, 2)  # the one in Python, which does not look whether the class is there
    pickler.save_global = lambda value, name=None: pickler.write(b"comegaconf.dictconfig\nDictConfig\n")  # type: ignore[method-assign, assignment]
    pickler.dump({"cfg": Node(), "n": 3})
    file = TorchFile(with_pickle(tmp_path / "a.ckpt", out.getvalue()))
    assert isinstance(file.content["cfg"], Foreign)
    assert file.content["n"] == 3


ATTACKS = {
    "a command": Calls(os.system, f"touch {MARK}"),
    "code": Calls(eval, f"open({str(MARK)!r}, 'w')"),
    "more code": Calls(exec, f"open({str(MARK)!r}, 'w')"),
    "a file": Calls(open, str(MARK), "w"),
    "a way to anything": Calls(getattr, os, "system"),
    "a module": Calls(__import__, "os"),
    "torch.load": Calls(torch.load, str(MARK)),
    "an encoder of its own": Calls(__import__("_codecs").encode, "abc", "rot13"),
    "a full dictionary": Calls(OrderedDict, [("a", 1)]),
    "a library of native code": Calls(torch.ops.load_library, str(MARK)),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused(tmp_path: Path, attack: str, protocol: int) -> None:
    try:
        program = pickle.dumps({"state_dicts": {"model": {}}, "cfg": ATTACKS[attack]}, protocol)
    except (pickle.PicklingError, TypeError, AttributeError):
        program = pickle.dumps({"cfg": Calls(eval, "1")}, protocol)  # what cannot be pickled cannot attack
    with pytest.raises(BadInput, match="is not read, .*expected tensors and a configuration only"):
        TorchFile(with_pickle(tmp_path / "evil.ckpt", program))


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'touch x'\ntR.",
        b"(S'touch x'\niposix\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # an extension code
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__defaults__'\nNsb.",  # sets a function's attributes
        b"ctorch._utils\n_rebuild_tensor_v2\n(N}S'__defaults__'\nNst\x86b.",
        b"comegaconf\nX\n(N}S'__new__'\nNst\x86b.",  # sets a class's attributes
        b"ctorch\nFloatStorage\n)R.",
        b"\x80\x04\x95",
        b"garbage",
        b"",
    ],
)
def test_odd_programs_are_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(BadInput, match="is not read"):
        TorchFile(with_pickle(tmp_path / "odd.ckpt", program))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),  # longer than its storage
        (2, (3,), (1,)),  # ends outside
        (-1, (2,), (1,)),  # begins outside
        (0, (10**12,), (0,)),  # one number, a terabyte
        (0, (2, 2), (1,)),
        (0, (2,), (-1,)),
        (0, ("2",), (1,)),
    ],
)
def test_tensors_outside_of_their_storage_are_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    program = tensor_program(offset, shape, strides)
    with pytest.raises(BadInput, match="it describes a tensor"):
        TorchFile(with_pickle(tmp_path / "a.ckpt", program, {"0": struct.pack("4f", 1, 2, 3, 4)}))


def test_a_described_tensor_is_read(tmp_path: Path) -> None:
    file = TorchFile(
        with_pickle(tmp_path / "a.ckpt", tensor_program(1, (3,), (1,)), {"0": struct.pack("4f", 1, 2, 3, 4)})
    )
    assert file.tensor(file.content["x"], "x").tolist() == [2, 3, 4]
    with pytest.raises(BadInput, match="y is not a tensor"):
        file.tensor("x", "y")


def test_short_missing_and_compressed_storages_are_refused(tmp_path: Path) -> None:
    program = tensor_program(0, (4,), (1,))
    short = TorchFile(with_pickle(tmp_path / "short.ckpt", program, {"0": b"1234"}))
    with pytest.raises(BadInput, match="x has 4 bytes, expected 16"):
        short.tensor(short.content["x"], "x")
    missing = TorchFile(with_pickle(tmp_path / "missing.ckpt", program))
    with pytest.raises(BadInput, match="is damaged"):
        missing.tensor(missing.content["x"], "x")
    with zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", program)
    with pytest.raises(BadInput, match="compressed"):
        TorchFile(tmp_path / "small.ckpt")


@given(where=st.floats(0, 1), flip=st.integers(1, 255))
@settings(max_examples=60)
def test_damage_is_said_or_harmless(tmp_path_factory: pytest.TempPathFactory, where: float, flip: int) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.ckpt"
    saved(path, {"x": torch.arange(50.0)})
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= flip
    path.write_bytes(data)
    try:
        file = TorchFile(path)
        content = file.content
        tensor = file.tensor(content.get("x") if isinstance(content, dict) else None, "x")
    except BadInput:
        return
    assert tensor.dtype != torch.float32 or tensor.shape != (50,) or torch.equal(tensor, torch.arange(50.0))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    torch.save({"x": torch.zeros(1)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("a/b", "c")
    for name, message in (("text", "not a readable"), ("old", "not a readable"), ("zip", "one data.pkl in it, got 0")):
        with pytest.raises(BadInput, match=message):
            TorchFile(tmp_path / name)
    with pytest.raises(BadInput, match="not a readable"):
        TorchFile(tmp_path / "absent")
