"""Arrow arrays straight from numpy buffers.

``pa.array`` and ``pa.scalar`` import pandas wherever it is installed (LeRobot brings it): a second of CPU that the
first episode's save, and every worker's, would wait for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_KINDS = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "int32": pa.int32()}


def numbers(values: NDArray[np.generic], dtype: str) -> pa.Array:
    """(N,) -> an array of N numbers."""
    flat = np.ascontiguousarray(values, dtype).ravel()
    return pa.Array.from_buffers(_KINDS[dtype], len(flat), [None, pa.py_buffer(flat)])


def vectors(values: NDArray[np.generic], dtype: str) -> pa.Array:
    """(N, D) -> an array of N vectors of fixed size."""
    return pa.FixedSizeListArray.from_arrays(numbers(values, dtype), values.shape[1])


def texts(values: Sequence[str]) -> pa.Array:
    """An array of texts."""
    encoded = [text.encode() for text in values]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(encoded), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    )


def nested_row(values: NDArray[np.generic], dtype: str) -> pa.Array:
    """A numpy array as *one* row of nested lists."""
    out = numbers(values, dtype)
    for axis in reversed(range(values.ndim)):
        lists = int(np.prod(values.shape[:axis]))
        out = _lists(out, lists, values.shape[axis])
    return out


def text_list_row(values: Sequence[str]) -> pa.Array:
    """Texts as *one* row, a list."""
    return _lists(texts(values), 1, len(values))


def _lists(values: pa.Array, count: int, length: int) -> pa.Array:
    offsets = np.arange(count + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(numbers(offsets, "int32"), values)
