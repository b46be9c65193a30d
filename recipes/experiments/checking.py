"""Checks of a recipe that gather what they find, so that every fault is said at once."""

from collections.abc import Collection
from typing import Any

from diffident.errors import InputError, did_you_mean

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class Faults:
    """What is wrong with a file, so far."""

    def __init__(self, where: str):
        self.where = where
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        """Note a fault; each is said once."""
        if fault not in self.found:
            self.found.append(fault)

    def unknown(self, table: str, values: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
        """Note keys that are not known, and give the others."""
        for key, value in values.items():
            if key not in known:
                self.add(f"`{_key(table, key)}` must be a known key; got {value!r}. {did_you_mean(key, known)}")
        return {key: value for key, value in values.items() if key in known}

    def table(self, values: dict[str, Any], key: str, table: str = "") -> dict[str, Any]:
        """The table of this name; empty where there is none."""
        found = values.get(key, {})
        if not isinstance(found, dict):
            self.add(f"`{_key(table, key)}` must be a table; got {found!r}.")
            return {}
        return found

    def raise_any(self) -> None:
        """Raise `InputError` with all faults, if there are any."""
        if self.found:
            count = f"{len(self.found)} entries are wrong. " if len(self.found) > 1 else ""
            raise InputError(f"{self.where}: {count}{' '.join(self.found)}")


def take(
    values: dict[str, Any],
    key: str,
    kind: type,
    default: Any,
    faults: Faults,
    table: str = "",
    *,
    choices: Collection[str] | None = None,
    least: float | None = None,
) -> Any:
    """The value of a key, or the default where it is absent or wrong, which is noted."""
    value = values.get(key, default)
    if key not in values:
        return default
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        faults.add(f"`{_key(table, key)}` must be {_WORDS[kind]}; got {value!r}.")
    elif choices is not None and value not in choices:
        faults.add(f"`{_key(table, key)}` must be a known name; got {value!r}. {did_you_mean(str(value), choices)}")
    elif least is not None and not value >= least:
        faults.add(f"`{_key(table, key)}` must be at least {least:g}; got {value}.")
    else:
        return value
    return default


def _key(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key
