"""`evaluation.json`: every metric as {value, low, high}; fractions, never per cent; undefined is null."""

import json
import math
from pathlib import Path
from typing import Any

from diffident.errors import InputError
from diffident.records import ClassGroup, DifficultyGroup, Estimate, Evaluation
from diffident.storage.atomic import write_text

_COUNTS = ("num_samples", "num_classes")
_FIELDS = ("value", "low", "high")
_SETS = ("calibrated", "conformal", "abstention")


def evaluation_to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain JSON values: a key per metric, `num_samples`, `num_classes` and `ood`; NaN is None.

    `by_difficulty`, `by_class`, `ood_detectors`, `calibrated`, `conformal` and `abstention` are there where the
    evaluation has them.
    """
    optional = {
        "by_difficulty": [
            {"low": _finite_or_none(group.low), "high": _finite_or_none(group.high), **_group_to_dict(group)}
            for group in evaluation.by_difficulty
        ],
        "by_class": [
            {"index": group.index, "name": group.name, **_group_to_dict(group)} for group in evaluation.by_class
        ],
        "ood_detectors": {name: _sets_to_dict(detectors) for name, detectors in evaluation.ood_detectors.items()},
        **{key: _sets_to_dict(getattr(evaluation, key)) for key in _SETS},
    }
    return {
        **_estimates_to_dict(evaluation.metrics),
        "num_samples": evaluation.num_samples,
        "num_classes": evaluation.num_classes,
        "ood": _sets_to_dict(evaluation.ood),
        **{key: value for key, value in optional.items() if value},
    }


def write_evaluation(evaluation: Evaluation, path: str | Path) -> None:
    """Write the evaluation, atomically and with sorted keys: the same evaluation gives the same bytes."""
    text = json.dumps(evaluation_to_dict(evaluation), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def read_evaluation(path: str | Path) -> Evaluation:
    """Read what `write_evaluation` wrote.

    Raises:
        InputError: no such file, not JSON, or a key that is missing or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"`evaluation` must be a file; got {path}, which is not there. Run `diffident evaluate` first."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError
        raise InputError(f"`evaluation` must be JSON; got {path}: {error}. Run `diffident evaluate` again.") from error
    if not isinstance(content, dict):
        raise _wrong(path, "the whole file", "an object", content)
    counts = {key: _whole(path, key, content.pop(key, None)) for key in _COUNTS}
    ood, sets = content.pop("ood", {}), {key: content.pop(key, {}) for key in _SETS}
    detectors = _object(path, "ood_detectors", content.pop("ood_detectors", {}))
    by_difficulty = _list(path, "by_difficulty", content.pop("by_difficulty", []))
    by_class = _list(path, "by_class", content.pop("by_class", []))
    return Evaluation(
        metrics=_read_estimates(path, "", content),
        ood=_read_sets(path, "ood", ood),
        calibrated=_read_sets(path, "calibrated", sets["calibrated"]),
        conformal=_read_sets(path, "conformal", sets["conformal"]),
        abstention=_read_sets(path, "abstention", sets["abstention"]),
        ood_detectors={name: _read_sets(path, f"ood_detectors.{name}", found) for name, found in detectors.items()},
        by_difficulty=tuple(
            _read_difficulty_group(path, f"by_difficulty.{number}", group) for number, group in enumerate(by_difficulty)
        ),
        by_class=tuple(_read_class_group(path, f"by_class.{number}", group) for number, group in enumerate(by_class)),
        **counts,
    )


def _group_to_dict(group: DifficultyGroup | ClassGroup) -> dict[str, Any]:
    return {"num_samples": group.num_samples, "metrics": _estimates_to_dict(group.metrics)}


def _sets_to_dict(sets: dict[str, dict[str, Estimate]]) -> dict[str, dict[str, Any]]:
    return {name: _estimates_to_dict(estimates) for name, estimates in sets.items()}


def _estimates_to_dict(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        key: {field: _finite_or_none(getattr(estimate, field)) for field in _FIELDS}
        for key, estimate in estimates.items()
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read_difficulty_group(path: Path, where: str, content: Any) -> DifficultyGroup:
    group = _object(path, where, content)
    ends = {key: _number(path, f"{where}.{key}", group.get(key)) for key in ("low", "high")}
    return DifficultyGroup(**ends, **_read_group(path, where, group))


def _read_class_group(path: Path, where: str, content: Any) -> ClassGroup:
    group = _object(path, where, content)
    name = group.get("name")
    if not isinstance(name, str | None):
        raise _wrong(path, f"{where}.name", "a string or null", name)
    return ClassGroup(_whole(path, f"{where}.index", group.get("index")), name, **_read_group(path, where, group))


def _read_group(path: Path, where: str, group: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_samples": _whole(path, f"{where}.num_samples", group.get("num_samples")),
        "metrics": _read_estimates(path, f"{where}.metrics", group.get("metrics")),
    }


def _read_sets(path: Path, where: str, content: Any) -> dict[str, dict[str, Estimate]]:
    sets = _object(path, where, content)
    return {name: _read_estimates(path, f"{where}.{name}", metrics) for name, metrics in sets.items()}


def _read_estimates(path: Path, where: str, content: Any) -> dict[str, Estimate]:
    estimates = _object(path, where, content)
    return {key: _read_estimate(path, f"{where}.{key}".lstrip("."), value) for key, value in estimates.items()}


def _read_estimate(path: Path, where: str, content: Any) -> Estimate:
    if not isinstance(content, dict) or set(content) != set(_FIELDS):
        raise _wrong(path, where, "an object with value, low and high", content)
    return Estimate(**{field: _number(path, f"{where}.{field}", value) for field, value in content.items()})


def _number(path: Path, where: str, value: Any) -> float:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _wrong(path, where, "a number or null", value)
    return math.nan if value is None else float(value)


def _whole(path: Path, where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, where, "a whole number", value)
    return value


def _object(path: Path, where: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _wrong(path, where, "an object", content)
    return content


def _list(path: Path, where: str, content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise _wrong(path, where, "a list", content)
    return content


def _wrong(path: Path, where: str, rule: str, value: Any) -> InputError:
    shown = json.dumps(value)[:40]
    return InputError(
        f"`{where}` must be {rule}; got {shown} in {path}. Write it with `diffident evaluate`, or mend it by hand."
    )
