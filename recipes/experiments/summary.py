"""Results as the documents need them: means over seeds, intervals, and the words for metrics."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t
from tabulate import tabulate

from diffident.comparison import spread_of
from diffident.errors import InputError
from diffident.significance import is_real
from experiments.measures import METRICS, SCALED

WHEN = {"before": "as trained", SCALED: "after temperature scaling on validation data"}


@dataclass(frozen=True)
class Column:
    """How a metric is shown.

    Attributes:
        key: In the results.
        title: In tables.
        higher: Whether higher is better.
        percent: Whether it is shown in per cent.
        digits: Decimals.
    """

    key: str
    title: str
    higher: bool
    percent: bool
    digits: int

    def number(self, value: float | None, *, sign: bool = False) -> str:
        """The value as it is shown; a dash where undefined."""
        if value is None or math.isnan(value):
            return "–"
        return f"{value * (100 if self.percent else 1):{'+' if sign else ''}.{self.digits}f}"


COLUMNS = (
    Column("accuracy", "accuracy %", True, True, 2),
    Column("ece", "ECE %", False, True, 2),
    Column("classwise_ece", "classwise ECE %", False, True, 3),
    Column("nll", "NLL", False, False, 4),
    Column("brier", "Brier", False, False, 4),
    Column("aurc", "AURC %", False, True, 3),
    Column("auroc_errors", "AUROC of errors %", True, True, 2),
    Column("fpr95_errors", "FPR95 of errors %", False, True, 2),
)
assert tuple(column.key for column in COLUMNS) == METRICS


@dataclass(frozen=True)
class Mean:
    """A metric over seeds: mean, sample standard deviation and 95 % t interval; NaN where there are too few."""

    mean: float
    deviation: float
    low: float
    high: float


def mean_of(values: list[float | None]) -> Mean:
    """Over the seeds at which it is defined."""
    spread = spread_of([math.nan if value is None else value for value in values])
    mean, deviation, seeds = spread.mean, spread.standard_deviation, spread.num_seeds
    half = float(t.ppf(0.975, seeds - 1)) * deviation / math.sqrt(seeds) if seeds > 1 else math.nan
    return Mean(mean, deviation, mean - half, mean + half)


def means_of(method: dict[str, Any], when: str) -> dict[str, Mean]:
    """Every metric of a method of the results, `before` or `after` temperature scaling."""
    keys = dict.fromkeys(key for run in method["runs"] for key in run[when])
    return {key: mean_of([run[when].get(key) for run in method["runs"]]) for key in keys}


def columns_of(results: dict[str, Any]) -> list[Column]:
    """The metrics of a recipe, those of its further sets last."""
    keys = dict.fromkeys(
        key for method in results["methods"].values() for run in method["runs"] for key in run["before"]
    )
    shown = list(COLUMNS)
    for key in keys:
        name, _, metric = key.partition("/")
        if name == "ood":
            shown.append(Column(key, f"AUROC of {metric} %", True, True, 2))
        elif metric:
            title = {"accuracy": "accuracy %", "ece": "ECE %", "nll": "NLL"}[metric]
            shown.append(
                Column(key, f"{name} {title}", metric == "accuracy", metric != "nll", 4 if metric == "nll" else 2)
            )
    return shown


def is_told(one: dict[str, Any]) -> bool:
    """Whether a difference of the results is told from chance."""
    _, low, high = one["difference"]
    return one["adjusted_p"] is not None and is_real(low, high, one["adjusted_p"])


def markdown_table(header: list[str], rows: list[list[str]], *, words: int = 1) -> str:
    """A table whose first columns, as many as `words`, are words, the others numbers."""
    aligned = [*["left"] * words, *["right"] * (len(header) - words)]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=aligned) + "\n"


def read_results(path: Path) -> dict[str, Any]:
    """A `results.json`.

    Raises:
        InputError: it is not there, or no such file.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        results = None
    if (
        not isinstance(results, dict)
        or results.get("format_version") != 1
        or not {"methods", "difficulty"} <= {*results}
    ):
        raise InputError(
            f"`RESULTS` must be a results.json of today's recipes/run.py; {path} is not. Run the recipe again, with "
            "--results-only where everything is trained."
        )
    if not results["methods"]:
        raise InputError(f"`RESULTS` must hold a finished run; {path} has none. Run the recipe.")
    return results
