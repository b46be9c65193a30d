"""Settings from TOML, `key=value` and keywords, and back to TOML."""

import dataclasses
import json
import tomllib
import typing
from pathlib import Path
from typing import Any

from diffident.errors import did_you_mean
from diffident.files import read_toml
from diffident.options import plain
from diffident.settings.checks import kind_of, loss_faults, raise_faults, value_faults
from diffident.settings.defaults import MODEL_PREFIXES, MODELS
from diffident.settings.record import TrainingSettings


def load_settings(
    path: str | Path | None = None, overrides: list[str] | None = None, **explicit: Any
) -> TrainingSettings:
    """Settings from a TOML file, then `key=value` texts, then keywords; the later wins.

    Args:
        path: TOML file with settings at its top level (a run's `config.toml` is one), or None.
        overrides: Such as `["alpha=0.3", "augment=crop-flip"]`.
        explicit: Settings by name; None is as if not given.

    Raises:
        InputError: one message with every unknown name, wrong type and value out of range.

    Example:
        >>> load_settings(None, ["alpha=0.3"], model="ngrams").alpha
        0.3
    """
    given: dict[str, Any] = {}
    faults: list[str] = []
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator or not key:
            faults.append(f"`--set` must be key=value; got {override!r}. Write --set alpha=0.3.")
            continue
        given[key.strip()] = parse_value(text.strip())
    given.update({key: value for key, value in explicit.items() if value is not None})
    values = {**(_read_toml(Path(path)) if path is not None else {}), **given}
    fields = {field.name: field for field in dataclasses.fields(TrainingSettings)}
    clean: dict[str, Any] = {}
    for key, value in values.items():
        where = "" if key in given else f" in {path}"
        if key not in fields:
            faults.append(f"`{key}` must be a known setting; got {key}={value!r}{where}. {did_you_mean(key, fields)}")
            continue
        value = _converted(value, kind_of(fields[key]))
        if not (value == fields[key].default and type(value) is fields[key].type):  # may lie outside: "the model's own"
            faults.extend(value_faults(fields[key], value, where))
        clean[key] = value
    if "model" not in values:
        faults.append(f"`model` must be given; got none. Choices: {', '.join(MODELS + MODEL_PREFIXES)}.")
    if faults:
        raise_faults(faults + loss_faults(clean, fields))
    return TrainingSettings(**clean)


def settings_toml(settings: TrainingSettings, **tables: dict[str, Any]) -> str:
    """The settings, then the tables, as TOML; equal input gives equal text."""
    values = dataclasses.asdict(settings)
    lines = [f"{key} = {_toml_value(value)}" for key, value in values.items() if value is not None]
    for name, table in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {_toml_value(value)}" for key, value in table.items() if value is not None),
        ]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_toml(path: Path) -> dict[str, Any]:
    """The settings of a file; of a run, whose config names its data too, with those that it is too old to know."""
    values = read_toml(path, "config")
    if not isinstance(values.get("data"), dict):
        return values
    return with_earlier({key: value for key, value in values.items() if key != "data"})


def with_earlier(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run or a ledger, with what those were that it is too old to know."""
    earlier: dict[str, Any] = {"relabel": False}
    if "soft_targets" not in values:  # which came after it; a curriculum that is left open is not in a run's file
        earlier["curriculum"] = 0.0
    return {**earlier, **values}


def parse_value(text: str) -> Any:
    """A TOML value; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _converted(value: Any, kind: Any) -> Any:
    """Whole numbers where any number is wanted, lists and texts such as `csv,wandb` where several values are."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str):
            value = [parse_value(part.strip()) for part in value.split(",") if part.strip()]
        several = value if isinstance(value, list | tuple) else [value]
        return tuple(_converted(one, typing.get_args(kind)[0]) for one in several)
    value = plain(value)
    return float(value) if kind is float and isinstance(value, int) and not isinstance(value, bool) else value
