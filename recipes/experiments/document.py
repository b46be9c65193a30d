"""`docs/results.md`: every table and sentence, made of `results.json` files alone."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diffident.significance import LEVEL
from experiments.overview import at_a_glance, ranks
from experiments.plots import images_of
from experiments.summary import COLUMNS, WHEN, Column, Mean, columns_of, is_told, markdown_table, means_of
from experiments.sweeps import Sweep, sweeps_of

_WITH_INTERVAL = ("accuracy", "ece", "nll", "aurc")
_OF_SWEEP = ("accuracy", "ece", "nll", "brier", "aurc", "auroc_errors")
_HEAD = """# Results

Made by `python recipes/tables.py` from `recipes/results/*.json`, which `python recipes/run.py` writes; nothing here is
typed by hand. Every recipe's file says what it is, how to run it and on what, and whether its results are
older than a change of the method.

How to read the tables and pictures:

- **Numbers** are mean ± standard deviation over seeds, on test data. Bold is the best mean among single models, and
  among ensembles. By chance alone ECE is above 0 for calibrated predictions, too; under the tables is by how much.
- **Strengths** were chosen on validation data, with the same number of values for every method; but `difficulty-aware`
  is the library's default: one training, which learns its one strength, doubt, on validation data (docs/method.md).
  `all-from-the-first` is that without its curriculum, which `shuffled` has, too, with random samples first. Results
  that are older than the curriculum say so in their recipes; in `cifar10_small_curriculum` `constant` has it, too.
- **Real** differences are those where a paired test over samples and, with several seeds, over seeds stays below
  {level:g} after Holm's correction over the metrics tested, and whose interval leaves 0 out (docs/metrics.md).
- **Wrong labels**: samples whose labels are probably wrong are left out, or, in the ResNets here, learn the class that
  is most probably right. `bonus-alone` believes all labels; `leaving-out` and `relabelling` do the one where the
  default does the other; `leaving-out-alone` and `relabelling-alone` do as `difficulty-aware` to the same samples,
  without a bonus.
- **Controls**: `shuffled` gives the same weights to random samples, and so leaves out random ones; `constant` gives the
  same weight to all, and leaves out none. `shuffled-believed` and `constant-believed` leave out, or relabel, the same
  samples as `difficulty-aware`. All of them learn their doubt as it does. Where `difficulty-aware` has soft targets,
  from the first epoch or since it began anew, `shuffled` has those of other samples with the same label, and `constant`
  their mean.
- **Soft targets**: `labels-alone` is the default without them, and without its curriculum; `mixtures-alone` has neither
  these nor a bonus.
- **Ensembles** share members: seed s takes the runs s, s + 1, ... round the end, and a set of members counts once. So
  the spread of an ensemble over seeds, its intervals and the test over seeds say less than those of a single model: of
  pairs of a single model and an ensemble that do not differ, one in ten passes that test at 0.05 (simulated, five
  seeds).
- **Bars** of the method are red-orange, of controls hatched, of ensembles dotted.
"""


def document(results: list[dict[str, Any]], images: str) -> str:
    """The whole page.

    Args:
        results: Of every recipe, in the order of the page.
        images: Folder of the pictures as the page names it.
    """
    parts = [_HEAD.format(level=LEVEL), at_a_glance(results), ranks(results)]
    parts += [_section(one, images) for one in results]
    return "\n".join(part for part in parts if part)


def _section(results: dict[str, Any], images: str) -> str:
    plain = {name: method for name, method in results["methods"].items() if "point" not in method}
    parts = [f"## {results['title']}\n", _facts(results), _choices(plain)]
    columns = columns_of(results)
    for when, words in WHEN.items():
        parts.append(f"### {results['title']}, {words}\n\n{_table(plain, columns, when)}")
    parts += [_chance(results, plain), _intervals(results, plain), _corrupted(plain)]
    pictures = images_of(results)
    parts += [f"![{words}]({images}/{name})\n" for name, words in pictures.items() if "-sweep-" not in name]
    parts += [_in_words(results, when) for when in WHEN]
    for sweep in sweeps_of(results):
        parts.append(f"### {results['title']}: {sweep.name}\n\n{_sweep_table(sweep, columns)}")
        parts += [f"![{words}]({images}/{name})\n" for name, words in pictures.items() if name.endswith(sweep.image)]
    return "\n".join(part for part in parts if part)


def _facts(results: dict[str, Any]) -> str:
    data, found = results["data"], results["environment"]
    sizes = ", ".join(f"{one['num_samples']:,} {name}" for name, one in data.items())
    where = found["gpu"] or f"{found['cpu']}, {found['cores']} cores, {found['threads']} thread(s) a training"
    seconds = [run["seconds"] for one in results["methods"].values() if "of" not in one for run in one["runs"]]
    lines = [
        f"Recipe: [`recipes/{results['recipe']}.toml`](../recipes/{results['recipe']}.toml). Samples: {sizes}. "
        f"Seeds: {len(results['seeds'])}. {len(seconds)} trainings of {np.median(seconds):,.0f} s (median) on {where}; "
        f"diffident {found['diffident']}, torch {found['torch']}."
    ]
    difficulty = results["difficulty"]
    if difficulty["encoder"] is not None:
        size = f" at {difficulty['image_size']} px" if difficulty["image_size"] else ""
        lines.append(f"Difficulty: `{difficulty['method']}`, of features of `{difficulty['encoder']}`{size}.")
    missing = ", ".join(f"{name} ({len(seeds)} seeds)" for name, seeds in results["missing"].items())
    if missing:
        lines.append(f"Not finished: {missing}.")
    return "\n".join(lines) + "\n"


def _choices(methods: dict[str, Any]) -> str:
    """Which strengths were chosen, and from which."""
    words = []
    for name, method in methods.items():
        chosen = (method.get("tuning") or {}).get("chosen")
        for option, value in (chosen or {}).items():
            tried = ", ".join(f"{trial[option]:g}" for trial in method["tuning"]["trials"])
            words.append(f"{name} {option} {value:g} (of {tried})")
    return f"Chosen by validation NLL: {'; '.join(words)}.\n" if words else ""


def _table(methods: dict[str, Any], columns: list[Column], when: str) -> str:
    means = {name: means_of(method, when) for name, method in methods.items()}
    ensembles = [name for name in methods if methods[name]["role"] == "ensemble"]
    best = _best(means, columns, [name for name in methods if name not in ensembles])
    if len(ensembles) > 1:
        best |= _best(means, columns, ensembles)
    rows = [
        [name, *(_cell(column, means[name].get(column.key), (name, column.key) in best) for column in columns)]
        for name in methods
    ]
    return markdown_table(["method", *(column.title for column in columns)], rows)


def _best(means: dict[str, dict[str, Mean]], columns: list[Column], names: list[str]) -> set[tuple[str, str]]:
    """Method and metric of every best mean; several where they are shown alike."""
    found = set()
    for column in columns:
        known = {name: means[name][column.key].mean for name in names if column.key in means[name]}
        known = {name: value for name, value in known.items() if not math.isnan(value)}
        if len(known) > 1:
            top = (max if column.higher else min)(known.values())
            found |= {(n, column.key) for n, value in known.items() if column.number(value) == column.number(top)}
    return found


def _cell(column: Column, mean: Mean | None, best: bool) -> str:
    if mean is None or math.isnan(mean.mean):
        return "–"
    text = column.number(mean.mean)
    text = f"**{text}**" if best else text
    return text if math.isnan(mean.deviation) else f"{text} ± {column.number(mean.deviation)}"


def _chance(results: dict[str, Any], methods: dict[str, Any]) -> str:
    """What ECE the baseline and ours would have if they were calibrated."""
    words = []
    for name in (results["baseline"], results["ours"]):
        runs = methods[name]["runs"] if name in methods else []
        found = [float(run["before"]["ece_of_chance"]) for run in runs if "ece_of_chance" in run["before"]]
        if not found or len(found) < len(runs):
            return ""
        words.append(f"{100 * float(np.mean(found)):.2f} % with the confidences of `{name}`")
    return f"By chance alone calibrated predictions have an ECE of {' and of '.join(words)}.\n"


def _intervals(results: dict[str, Any], methods: dict[str, Any]) -> str:
    """Means with intervals over samples and seeds, of the metrics that matter most."""
    comparisons = results["comparisons"] or {}
    means = comparisons.get("before", {}).get("means", {})
    columns = [column for column in COLUMNS if column.key in _WITH_INTERVAL]
    rows = []
    for name in methods:
        if name in means:
            rows.append([name, *(_with_interval(column, means[name][column.key]) for column in columns)])
    if not rows:
        return ""
    table = markdown_table(["method", *(column.title for column in columns)], rows)
    return f"### {results['title']}, 95 % intervals over samples and seeds\n\n{table}"


def _with_interval(column: Column, estimate: list[float | None]) -> str:
    value, low, high = (column.number(one) for one in estimate)
    return f"{value} ({low} to {high})"


def _corrupted(methods: dict[str, Any]) -> str:
    """Metrics on corrupted test data, where they were measured."""
    rows = []
    for name, method in methods.items():
        found = [run["corrupted"] for run in method["runs"] if "corrupted" in run]
        if found:
            values = [float(np.mean([one[key] for one in found])) for key in ("mean_corruption_error", "mean_ece")]
            rows.append([name, *(f"{100 * value:.2f}" for value in values)])
    return markdown_table(["method", "mean corruption error %", "mean ECE %"], rows) if rows else ""


def _in_words(results: dict[str, Any], when: str) -> str:
    """The real differences in sentences: of all methods from the baseline, and of ours from all."""
    found = (results["comparisons"] or {}).get(when)
    if not found:
        return ""
    baseline, ours = results["baseline"], results["ours"]
    against = [one for one in found["differences"] if one["other"] == baseline]
    of_ours = [one for one in found["differences"] if one["method"] == ours and one["other"] != baseline]
    parts = [f"### {results['title']}, real differences, {WHEN[when]}\n"]
    parts.append(f"From {baseline}:\n")
    parts += _sentences(against, lambda one: one["method"], results)
    if of_ours:
        parts.append(f"\nOf {ours} from the others:\n")
        parts += _sentences(of_ours, lambda one: f"from {one['other']}", results)
    return "\n".join(parts) + "\n"


def _sentences(differences: list[dict[str, Any]], named: Callable[[dict], str], results: dict[str, Any]) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in differences:
        if "point" not in results["methods"][one["method"]]:
            groups.setdefault(named(one), []).append(one)
    columns = {column.key: column for column in COLUMNS}
    lines = []
    for name, several in groups.items():
        words = [_words(columns[one["metric"]], one) for one in several if is_told(one)]
        lines.append(f"- {name}: {'; '.join(words) or 'none of the differences is told from chance'}.")
    return lines


def _words(column: Column, one: dict[str, Any]) -> str:
    value, low, high = one["difference"]
    better = "better" if (value > 0) == column.higher else "worse"
    ends = f"{column.number(low, sign=True)} to {column.number(high, sign=True)}"
    return (
        f"{column.title.removesuffix(' %')} {better} by {column.number(abs(value))} ({ends}, p {one['adjusted_p']:.2g})"
    )


def _sweep_table(sweep: Sweep, columns: list[Column]) -> str:
    shown = [column for column in columns if column.key in _OF_SWEEP or column.key.startswith("ood/")]
    means = {key: means_of(method, "before") for key, method in sweep.methods.items()}
    rows = [
        [method, sweep.shown(value), *(_cell(column, means[method, value].get(column.key), False) for column in shown)]
        for method, value in sweep.methods
    ]
    return markdown_table(["method", sweep.vary, *(column.title for column in shown)], rows)
