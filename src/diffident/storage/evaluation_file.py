"""`evaluation.json`: every metric as {value, low, high}; fractions, never per cent; undefined is null."""

import json
import math
from pathlib import Path
from typing import Any

from diffident.errors import InputError
from diffident.records import Estimate, Evaluation
from diffident.storage.atomic import write_text

_COUNTS = ("num_samples", "num_classes")
_FIELDS = ("value", "low", "high")


def evaluation_to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain JSON values: a key per metric, `num_samples`, `num_classes` and `ood`; NaN is None."""
    return {
        **_estimates_to_dict(evaluation.metrics),
        "num_samples": evaluation.num_samples,
        "num_classes": evaluation.num_classes,
        "ood": {name: _estimates_to_dict(metrics) for name, metrics in evaluation.ood.items()},
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
    for key in _COUNTS:
        if not isinstance(content.get(key), int) or isinstance(content.get(key), bool):
            raise _wrong(path, key, "a whole number", content.get(key))
    ood = content.pop("ood", {})
    if not isinstance(ood, dict):
        raise _wrong(path, "ood", "an object", ood)
    counts = {key: content.pop(key) for key in _COUNTS}
    return Evaluation(
        metrics=_read_estimates(path, "", content),
        ood={name: _read_estimates(path, f"ood.{name}", metrics) for name, metrics in ood.items()},
        **counts,
    )


def _estimates_to_dict(estimates: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        key: {field: _finite_or_none(getattr(estimate, field)) for field in _FIELDS}
        for key, estimate in estimates.items()
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read_estimates(path: Path, where: str, content: Any) -> dict[str, Estimate]:
    if not isinstance(content, dict):
        raise _wrong(path, where, "an object", content)
    return {key: _read_estimate(path, f"{where}.{key}".lstrip("."), value) for key, value in content.items()}


def _read_estimate(path: Path, where: str, content: Any) -> Estimate:
    if not isinstance(content, dict) or set(content) != set(_FIELDS):
        raise _wrong(path, where, "an object with value, low and high", content)
    numbers = {}
    for field, value in content.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _wrong(path, f"{where}.{field}", "a number or null", value)
        numbers[field] = math.nan if value is None else float(value)
    return Estimate(**numbers)


def _wrong(path: Path, where: str, rule: str, value: Any) -> InputError:
    shown = json.dumps(value)[:40]
    return InputError(
        f"`{where}` must be {rule}; got {shown} in {path}. Write it with `diffident evaluate`, or mend it by hand."
    )
