"""Options of a method by name: one frozen record a method, and the checks that its values share."""

import dataclasses
import math
from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np

from diffident.errors import InputError, did_you_mean

Options = TypeVar("Options")


def options_of(kind: type[Options], what: str, values: dict[str, Any]) -> Options:
    """The options record of a method.

    Args:
        kind: Its dataclass.
        what: The method, for errors: "difficulty method 'knn'".
        values: What was given.

    Raises:
        InputError: an option that the method does not take, one that is needed and lacks, or a wrong value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        check_option(name, value, fields, what)
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise InputError(f"`{missing[0]}` must be given for the {what}; got none. Add it.")
    return kind(**{name: _typed(name, value, fields[name].type) for name, value in values.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as the field's type has it; a whole number is a number as well, but true is neither."""
    value = plain(value)
    words = {int: "a whole number", float: "a number", str: "text", float | str: "a number or text"}
    if kind not in words:
        return value
    if kind in (float, float | str) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InputError(f"`{name}` must be {words[kind]}; got {value!r}. Leave it out for the default.")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InputError(f"`{name}` must be below 2^63; got {value}. Leave it out for the default.")
    return value


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_option(name: str, value: Any, known: Collection[str], what: str) -> None:
    """Refuse an option that the method, named by `what`, does not take."""
    if name not in known:
        mend = did_you_mean(name, known) if known else "It takes no options."
        raise InputError(f"`{name}` must be an option of the {what}; got {name}={value!r}. {mend}")


def check_whole(name: str, value: int, least: int) -> None:
    """Refuse less than `least`."""
    if value < least:
        raise InputError(
            f"`{name}` must be a whole number, at least {least}; got {value}. Leave it out for the default."
        )


def check_above_zero(name: str, value: float) -> None:
    """Refuse what is not finite or not above 0."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"`{name}` must be a number above 0; got {value!r}. Leave it out for the default.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse what is not one of the names."""
    if value not in choices:
        raise InputError(f"`{name}` must be a known name; got {value!r}. {did_you_mean(value, choices)}")
