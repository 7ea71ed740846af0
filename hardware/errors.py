"""Errors that a user can cause or must act on.

``cli.py`` prints a :class:`DexLoopError` as one sentence and exits with its ``exit_code``. Every message
says what was got, what was expected and what to do next.
"""


class DexLoopError(Exception):
    """Base of all expected failures."""

    exit_code = 1


class BadInput(DexLoopError):
    """The user asked for something that cannot be: wrong value, missing file, unknown name."""

    exit_code = 2


class DeviceError(DexLoopError):
    """A robot or camera failed or stopped answering while it was in use."""


class DatasetError(DexLoopError):
    """A data set or journal is damaged or of another schema."""


class StorageError(DexLoopError):
    """The disk is full or does not take what is written to it."""
