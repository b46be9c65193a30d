"""From a TOML file to a `Recipe`; every fault is reported at once.

`extends = "FILE"` takes everything from another file first; tables are merged key by key, the later wins, and
`without = [NAME, ...]` leaves methods of that file out. `[sweeps.NAME]` makes a method of every value of one key:
`vary = "data.label_noise"`, `values`, and the `methods` that it is varied for, each `like` the method itself.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from diffident.corruptions import CORRUPTIONS
from diffident.difficulties import METHODS
from diffident.difficulties.training_dynamics import STATISTICS
from diffident.errors import InputError, did_you_mean
from diffident.files import read_toml
from diffident.losses import LOSSES
from diffident.settings import TrainingSettings, parse_value
from experiments.checking import Faults, take
from experiments.linking import check_links, check_settings, sweep_methods
from experiments.recipe import (
    SPLITS,
    Corruptions,
    DataChange,
    DataSpec,
    DifficultySpec,
    EnsembleSpec,
    Method,
    Recipe,
)

BUDGET = 3
"""Values that every tuned method is trained with."""
TRAINING_KEYS = tuple(
    field.name for field in dataclasses.fields(TrainingSettings) if field.name not in ("loss", "seed", "dynamics")
)
TOP_KEYS = (
    "extends",
    "without",
    "title",
    "data",
    "difficulty",
    "training",
    "seeds",
    "baseline",
    "ours",
    "methods",
    "sweeps",
    "tuning_seed",
    "num_resamples",
    "corruptions",
)
DIFFICULTY_METHODS = tuple(name for name, kind in METHODS.items() if kind.needs in (None, "dynamics"))
"""What needs features and labels alone, or a training that the recipe can do first."""
METHOD_KEYS = ("loss", "difficulty", "data", "like", "tune", "ensemble")
_NAME = re.compile(r"[a-z0-9][a-z0-9+-]*")


def read_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in a file.

    Args:
        path: The TOML file.
        overrides: Texts such as `training.epochs=1`; the last word on any key.

    Raises:
        InputError: one message with every fault.
    """
    path = Path(path)
    faults = Faults(str(path))
    values = _merged(path, ())
    for text in overrides or []:
        _override(values, text, faults)
    values = {key: value for key, value in values.items() if key not in ("extends", "without")}
    recipe = _recipe(path.stem, values, faults)
    faults.raise_any()
    return recipe


def _merged(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file's values over those of the file that it extends."""
    if path.resolve() in seen:
        raise InputError(f"`extends` must not lead back to {path}; it does. Leave one of them out.")
    values = read_toml(path, "RECIPE")
    if "extends" not in values:
        return values
    below = _merged(path.parent / str(values["extends"]), (*seen, path.resolve()))
    for name in values.get("without", []):
        if name not in below.get("methods", {}):
            hint = did_you_mean(str(name), below.get("methods", {}))
            raise InputError(f"`without` must name methods of {values['extends']}; got {name!r} in {path}. {hint}")
        del below["methods"][name]
    return _over(below, values)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _over(below[key], value) if both else value
    return merged


def _override(values: dict[str, Any], text: str, faults: Faults) -> None:
    key, separator, value = text.partition("=")
    *tables, last = key.strip().split(".")
    if not separator or not last:
        faults.add(f"`--set` must be KEY=VALUE; got {text!r}. Write --set training.epochs=1.")
        return
    for name in tables:
        below = values.setdefault(name, {})
        if not isinstance(below, dict):
            faults.add(f"`--set` must name a table before the dot; got {text!r}, where {name} is a value.")
            return
        values[name] = values = dict(below)
    values[last] = parse_value(value.strip())


def _recipe(name: str, values: dict[str, Any], faults: Faults) -> Recipe:
    faults.unknown("", values, TOP_KEYS)
    data = _data(faults.table(values, "data"), faults)
    difficulty = _difficulty(faults.table(values, "difficulty"), DifficultySpec(), "difficulty", faults)
    training = faults.unknown("training", faults.table(values, "training"), TRAINING_KEYS)
    methods = {
        key: _named(key, entry if isinstance(entry, dict) else {}, difficulty, faults)
        for key, entry in faults.table(values, "methods").items()
    }
    recipe = Recipe(
        name=name,
        title=take(values, "title", str, name, faults),
        data=data,
        difficulty=difficulty,
        training=training,
        seeds=take(values, "seeds", int, 3, faults, least=1),
        baseline=take(values, "baseline", str, "cross-entropy", faults),
        ours=take(values, "ours", str, "difficulty-aware", faults),
        methods=methods,
        tuning_seed=take(values, "tuning_seed", int, 1000, faults, least=0),
        num_resamples=take(values, "num_resamples", int, 1000, faults, least=1),
        corruptions=_corruptions(faults.table(values, "corruptions"), faults),
    )
    check_links(recipe, faults)
    for sweep, entry in faults.table(values, "sweeps").items():
        points = sweep_methods(sweep, entry if isinstance(entry, dict) else {}, recipe, faults)
        for point, own in points:
            methods[point.name] = _point(point, own, methods, faults)
    check_settings(recipe, faults)
    return recipe


def _data(values: dict[str, Any], faults: Faults) -> DataSpec:
    fields = DataSpec.__dataclass_fields__
    faults.unknown("data", values, fields)
    for split in SPLITS:
        if split not in values:
            faults.add(f'`data.{split}` must be given; got none. Write {split} = "FILE".')
    sets = {key: faults.table(values, key, "data") for key in ("ood", "extra")}
    for key, found in sets.items():
        for name, spec in found.items():
            if not isinstance(spec, str):
                faults.add(f"`data.{key}.{name}` must be text; got {spec!r}.")
    inputs = take(values, "inputs", str, "samples", faults, "data", choices=("samples", "features"))
    train, validation, test = (take(values, split, str, "", faults, "data") for split in SPLITS)
    return DataSpec(
        train=train,
        validation=validation,
        test=test,
        **sets,
        label_column=take(values, "label_column", str, None, faults, "data"),
        limit=take(values, "limit", int, None, faults, "data", least=2),
        inputs=inputs,
    )


def _difficulty(values: dict[str, Any], base: DifficultySpec, where: str, faults: Faults) -> DifficultySpec:
    method = take(values, "method", str, base.method, faults, where, choices=METHODS)
    kind = METHODS.get(method, METHODS["rmd"])
    if method not in DIFFICULTY_METHODS:
        known = ", ".join(DIFFICULTY_METHODS)
        faults.add(f"`{where}.method` must be one of {known}; got {method!r}, which needs {kind.needs}.")
    switches = ("shuffle", "shuffle_within_class", "invert", "constant", "of_believed")
    faults.unknown(where, values, ("encoder", "image_size", "method", *switches, *kind.options))
    options = {key: values[key] for key in kind.options if key in values}
    if "statistic" in options:  # would else be refused after a whole training
        take(options, "statistic", str, "", faults, where, choices=STATISTICS)
    encoder = take(values, "encoder", str, base.encoder, faults, where)
    usual_size = base.image_size if encoder == base.encoder else None  # that of one encoder is not for another
    return DifficultySpec(
        encoder=encoder,
        image_size=take(values, "image_size", int, usual_size, faults, where, least=1),
        method=method,
        options={**(base.options if method == base.method else {}), **options},
        **{key: take(values, key, bool, getattr(base, key), faults, where) for key in switches},
    )


def _named(name: str, values: dict[str, Any], difficulty: DifficultySpec, faults: Faults) -> Method:
    if not _NAME.fullmatch(name):
        faults.add(f"`methods` must have names of small letters, digits, + and -; got {name!r}.")
    return _method(name, values, difficulty, faults)


def _method(name: str, values: dict[str, Any], difficulty: DifficultySpec, faults: Faults) -> Method:
    where = f"methods.{name}"
    if "ensemble" in values:
        faults.unknown(where, values, ("ensemble",))
        found = faults.table(values, "ensemble", where)
        faults.unknown(f"{where}.ensemble", found, ("of", "members"))
        of = take(found, "of", str, "", faults, f"{where}.ensemble")
        members = take(found, "members", int, 3, faults, f"{where}.ensemble", least=2)
        return Method(name, ensemble=EnsembleSpec(of, members))
    known = (*METHOD_KEYS, *TRAINING_KEYS)
    faults.unknown(where, values, known)
    if ("loss" in values) == ("like" in values):
        faults.add(f"`{where}` must have one of `loss` and `like`; got {'both' if 'loss' in values else 'neither'}.")
    tune = faults.table(values, "tune", where)
    for option, candidates in tune.items():
        if option not in TRAINING_KEYS:
            faults.add(f"`{where}.tune` must name a setting; got {option!r}. {did_you_mean(option, TRAINING_KEYS)}")
        if not isinstance(candidates, list) or len(candidates) != BUDGET:
            faults.add(f"`{where}.tune.{option}` must be {BUDGET} values, as of every method; got {candidates!r}.")
    if len(tune) > 1:
        faults.add(f"`{where}.tune` must name one option; got {', '.join(tune)}.")
    return Method(
        name=name,
        loss=take(values, "loss", str, "", faults, where, choices=LOSSES) if "loss" in values else "",
        options={key: value for key, value in values.items() if key in TRAINING_KEYS},
        difficulty=_difficulty(faults.table(values, "difficulty", where), difficulty, f"{where}.difficulty", faults),
        data=_data_change(faults.table(values, "data", where), f"{where}.data", faults),
        like=take(values, "like", str, None, faults, where),
        tune=tune,
    )


def _point(point: Method, own: dict[str, Any], methods: dict[str, Method], faults: Faults) -> Method:
    """The method at a point of a sweep: all that it says of itself, and the one thing that varies."""
    assert point.point is not None
    base = methods[point.point.method]
    made = _method(point.name, own, base.difficulty, faults)
    change = {key: value for key, value in vars(made.data).items() if value is not None}
    options = {**(base.options if base.like else {}), **made.options}  # those of what it is like come from there
    return dataclasses.replace(made, point=point.point, options=options, data=dataclasses.replace(base.data, **change))


def _data_change(values: dict[str, Any], where: str, faults: Faults) -> DataChange:
    faults.unknown(where, values, DataChange.__dataclass_fields__)
    noise = take(values, "label_noise", float, None, faults, where, least=0)
    if noise is not None and noise > 1:
        faults.add(f"`{where}.label_noise` must be at most 1, a share; got {noise:g}.")
    return DataChange(
        limit=take(values, "limit", int, None, faults, where, least=2),
        imbalance=take(values, "imbalance", float, None, faults, where, least=1),
        label_noise=noise,
    )


def _corruptions(values: dict[str, Any], faults: Faults) -> Corruptions:
    faults.unknown("corruptions", values, Corruptions.__dataclass_fields__)
    kinds, severities = values.get("kinds", []), values.get("severities", [1, 2, 3, 4, 5])
    for name, found in (("kinds", kinds), ("severities", severities)):
        if not isinstance(found, list):
            faults.add(f"`corruptions.{name}` must be a list; got {found!r}.")
            return Corruptions()
    for kind in kinds:
        if kind not in ("all", *CORRUPTIONS):
            faults.add(f"`corruptions.kinds` must be known names; got {kind!r}. {did_you_mean(str(kind), CORRUPTIONS)}")
    for severity in severities:
        if severity not in (1, 2, 3, 4, 5):
            faults.add(f"`corruptions.severities` must be of 1 to 5; got {severity!r}.")
    return Corruptions(
        tuple(kinds), tuple(severities), take(values, "limit", int, None, faults, "corruptions", least=1)
    )
