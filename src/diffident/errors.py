"""Exceptions: each inherits `DiffidentError` and the built-in that it refines; they say what, where, how to mend."""

import difflib
from collections.abc import Iterable


class DiffidentError(Exception):
    """Base of every error that diffident raises on purpose."""


class InputError(DiffidentError, ValueError):
    """A value, file or option that the user gave is wrong. The command line exits with code 2."""


class MissingColumnError(InputError):
    """A column that was asked for by name is not there."""


class ShapeError(InputError):
    """An array has the wrong shape."""


class IdMismatchError(InputError):
    """Two things that are joined by id do not hold the same ids."""


class UnreadableSampleError(InputError):
    """A sample of a dataset cannot be decoded."""


class ResumeError(InputError):
    """Unfinished or finished work on disk does not fit what is asked for now."""


class MissingDependencyError(DiffidentError, ImportError):
    """An optional library is needed and not installed. The command line exits with code 2."""


class UnavailableError(DiffidentError, OSError):
    """Weights or data could not be fetched, because the network or the hub is out of reach."""


class WorkerError(DiffidentError, RuntimeError):
    """A worker on a cluster failed for a reason of its own: it died too often, or code of the user's raised."""


class DataWarning(UserWarning):
    """Something in the data was left out or is probably not meant so."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A sentence that names near choices, then all of them; for the end of an error message."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(f'`{n}`' for n in near)}? " if near else ""
    return f"{hint}Choices: {', '.join(choices)}."
