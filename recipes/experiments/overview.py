"""The first tables of the document: what our method changes in every recipe, and its rank among the losses."""

import math
from typing import Any

from diffident.significance import mean_ranks
from experiments.summary import COLUMNS, WHEN, Column, columns_of, is_told, markdown_table, means_of
from experiments.sweeps import sweeps_of

_GLANCE = ("accuracy", "ece", "nll", "aurc")


def at_a_glance(results: list[dict[str, Any]]) -> str:
    """The section of the differences of our method from the baseline and from the controls, of every recipe."""
    columns = [column for column in COLUMNS if column.key in _GLANCE]
    parts = []
    for when, words in WHEN.items():
        rows = [row for one in results if not sweeps_of(one) for row in _rows(one, columns, when)]
        if rows:
            header = ["recipe", "from", *(column.title for column in columns)]
            parts.append(f"{words.capitalize()}:\n\n{markdown_table(header, rows, words=2)}")
    if not parts:
        return ""
    note = (
        "Our method minus the baseline, minus the controls and minus its parts, of each recipe. Bold: better, and told "
        "from chance; in brackets: worse, and told from chance; the others are not told from chance.\n"
    )
    return "\n".join(["## At a glance\n", note, *parts])


def _rows(results: dict[str, Any], columns: list[Column], when: str) -> list[list[str]]:
    found = (results["comparisons"] or {}).get(when)
    if not found:
        return []
    controls = [name for name, method in results["methods"].items() if method["role"] == "control"]
    rows = []
    for other in (results["baseline"], *controls):
        cells = {
            one["metric"]: one
            for one in found["differences"]
            if (one["method"], one["other"]) == (results["ours"], other)
        }
        if cells:
            shown = [_difference(column, cells.get(column.key)) for column in columns]
            rows.append([f"`{results['recipe']}`", other, *shown])
    return rows


def _difference(column: Column, one: dict[str, Any] | None) -> str:
    value = None if one is None else one["difference"][0]
    text = column.number(value, sign=True)
    if one is None or value is None or not is_told(one):
        return text
    return f"**{text}**" if (value > 0) == column.higher else f"({text})"


def ranks(results: list[dict[str, Any]]) -> str:
    """The section of the mean ranks of the single-model losses that all recipes have, over recipes and metrics.

    A recipe of which more is missing than there waits for it, and one of fewer than half of the losses of another is
    left out, as few losses would be left to rank.
    """
    every = [one for one in results if not sweeps_of(one)]
    most = max((len(_losses(one)) for one in every), default=0)
    plain = [one for one in every if 2 * len(_losses(one)) >= most]
    tables = [one for one in plain if len(one["missing"]) <= len(_losses(one))]
    losses = [_losses(one) for one in tables]
    names = [name for name in (tables[0]["methods"] if tables else ()) if all(name in known for known in losses)]
    if len(names) < 2:
        return ""
    found = {when: _mean_ranks(tables, names, when) for when in WHEN}
    rows = [
        [name, *(f"{found[when][name]:.2f}" for when in WHEN)]
        for name in sorted(names, key=lambda name: found["before"][name])
    ]
    left = sorted(set().union(*losses) - set(names))
    note = f" Not in all of them: {', '.join(left)}." if left else ""
    waiting = [one["title"] for one in plain if one not in tables]
    if waiting:
        note += f" Without what is mostly not trained yet: {'; '.join(waiting)}."
    few = [one["title"] for one in every if one not in plain]
    if few:
        note += f" Without what has few losses: {'; '.join(few)}."
    count = "one recipe" if len(tables) == 1 else f"{len(tables)} recipes"
    table = markdown_table(["method", *WHEN.values()], rows)
    return (
        f"## Mean ranks\n\nOver {count} and all metrics of the tables, 1 is best; single models only.{note}\n\n{table}"
    )


def _losses(results: dict[str, Any]) -> set[str]:
    return {name for name, method in results["methods"].items() if method["role"] == "loss"}


def _mean_ranks(tables: list[dict[str, Any]], names: list[str], when: str) -> dict[str, float]:
    values = []
    for results in tables:
        means = {name: means_of(results["methods"][name], when) for name in names}
        for column in columns_of(results):
            signed = {n: means[n][column.key].mean * (-1 if column.higher else 1) for n in names}
            if not any(map(math.isnan, signed.values())):
                values.append(signed)
    return mean_ranks(values, higher_is_better=False)
