"""Reading a ``torch.save`` file that holds foreign objects, without running anything that is written in it.

A pickle is a program: it may name any function and call it. ``torch.load(weights_only=True)`` allows tensors only and
refuses a file that also holds a configuration object; this reader answers every name with a harmless stand-in:

- what tensors are made of (:data:`_TENSORS`) builds a description of the tensor, checked before bytes are touched;
- classes of configuration libraries (:data:`_FOREIGN`) become :class:`Foreign`, which takes whatever it is given;
- any other name ends the reading with BadInput.

No name is ever imported, so no object of the file's choice can exist.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...hardware.errors import BadInput

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_FOREIGN = ("omegaconf", "hydra", "antlr4", "yaml", "dill", "typing", "enum", "pathlib", "numpy", "controller")
"""Packages whose classes a training configuration may be made of."""
_PLAIN = ("dict", "list", "tuple", "set", "frozenset", "str", "int", "float", "bool", "bytes", "complex", "object")
"""Built-in types that configuration objects mention."""
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a nonsensical pickle makes Python's reader raise."""
_ZIP_ERRORS = (OSError, zipfile.BadZipFile, EOFError, LookupError, RuntimeError, ValueError, struct.error, zlib.error)


class Foreign:
    """Stands for an object that is not built. Takes everything, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Foreign:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...

    def add(self, value: object) -> None: ...

    def update(self, *values: object) -> None: ...


class _Dict(dict[Any, Any]):
    """An OrderedDict whose attributes (torch keeps versions there) are left away."""

    def __setstate__(self, state: object) -> None: ...


class _Storage(NamedTuple):  # and not a dataclass: a pickle can write into one of those, frozen or not
    key: str
    dtype: torch.dtype
    numbers: int


class _Tensor(NamedTuple):
    """A view of a storage, not read yet. Strides and offset in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Call:
    """An allowed function. Unlike a real one it has nothing that a pickle could set."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: object) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"it sets {name} of a function")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_hooks: Any) -> _Tensor:
    if not (isinstance(storage, _Storage) and _whole(shape) and _whole(strides) and _whole((offset,))):
        raise pickle.UnpicklingError("it describes a tensor that is none")
    if len(shape) != len(strides) or math.prod(shape) > storage.numbers:
        raise pickle.UnpicklingError("it describes a tensor larger than its storage")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.numbers:
        raise pickle.UnpicklingError("it describes a tensor outside of its storage")
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data: object, *_rest: object) -> object:
    return data


def _ordered_dict(*args: object) -> _Dict:
    if args:
        raise pickle.UnpicklingError("it fills a dictionary in an unusual way")
    return _Dict()


def _encode(text: object, encoding: object) -> bytes:
    """How bytes are written in protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something in an unusual way")
    return text.encode("latin1")


def _whole(numbers: object) -> bool:
    return isinstance(numbers, tuple) and all(type(number) is int and number >= 0 for number in numbers)


_TENSORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TENSORS:
            return _Call(_TENSORS[module, name])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        plain = module in ("builtins", "__builtin__") and name in _PLAIN
        if plain or module.split(".")[0] in _FOREIGN or (module, name) == ("collections", "defaultdict"):
            return type("Foreign", (Foreign,), {})
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something that is no storage")
        _, dtype, key, _device, numbers = pid
        if (
            not isinstance(dtype, torch.dtype)
            or not isinstance(key, str)
            or not key.isdigit()
            or not _whole((numbers,))
        ):
            raise pickle.UnpicklingError("it refers to a storage that is none")
        return _Storage(key, dtype, numbers)


class TorchFile:
    """An opened ``torch.save`` file: :attr:`content` with descriptions in place of tensors, :meth:`tensor` to read one.

    Raises BadInput where the file is no such file, is damaged, or asks for more than tensors and configuration.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except _ZIP_ERRORS as error:
            raise BadInput(f"{path} is not a readable torch.save file ({error}): fetch it again.") from error
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in self._zip.infolist()):
            raise BadInput(f"{path} holds compressed parts, which torch.save never writes: it is not read.")
        pickles = [name for name in self._zip.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise BadInput(f"{path} is not a torch.save file: expected one data.pkl in it, got {len(pickles)}.")
        self._folder = pickles[0].removesuffix("data.pkl")
        try:
            self.content = _Unpickler(io.BytesIO(self._read("data.pkl"))).load()
        except _PICKLE_ERRORS as error:
            raise BadInput(
                f"{path} is not read, {error}: expected tensors and a configuration only. If it comes from someone you "
                "do not trust, delete it."
            ) from error
        if f"{self._folder}byteorder" in self._zip.namelist() and self._read("byteorder") != sys.byteorder.encode():
            raise BadInput(f"{path} was written on a machine of another byte order: convert it there.")

    def tensor(self, described: object, name: str) -> Tensor:
        """Read one of the tensors that :attr:`content` describes. ``name``: for the error."""
        if not isinstance(described, _Tensor):
            raise BadInput(f"{self.path}: {name} is not a tensor: the checkpoint is of another kind.")
        storage = described.storage
        data = self._read(f"data/{storage.key}")
        if len(data) != storage.numbers * storage.dtype.itemsize:
            raise BadInput(
                f"{self.path}: {name} has {len(data)} bytes, expected {storage.numbers * storage.dtype.itemsize}: "
                "the file is damaged, fetch it again."
            )
        if not data:
            return torch.empty(described.shape, dtype=storage.dtype)
        numbers = torch.frombuffer(bytearray(data), dtype=storage.dtype)
        return numbers.as_strided(described.shape, described.strides, described.offset).clone()

    def _read(self, entry: str) -> bytes:
        try:
            return self._zip.read(self._folder + entry)
        except _ZIP_ERRORS as error:
            raise BadInput(f"{self.path} is damaged ({error}): fetch it again.") from error
