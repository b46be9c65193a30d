"""What `diffident compare` prints: tables, sentences and plain values."""

import math
from dataclasses import asdict

from diffident.cli.common import amount, print_table

SHOWN = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")
VERDICT = ("accuracy", "nll", "ece", "aurc")
_HIGHER_IS_BETTER = ("accuracy", "auroc", "aupr", "coverage_at_risk", "brier_resolution")
_COLUMNS = 6
"""Metrics in a table at most, of which 80 characters have room for."""
_WORDS = {"nll": "NLL", "brier": "Brier score", "ece": "ECE", "aurc": "AURC", "auroc_errors": "AUROC of errors"}


def higher_is_better(metric: str) -> bool:
    """Whether a metric of an evaluation is better when it is higher; of `ood/NAME/auroc` by its last part."""
    return metric.rpartition("/")[2].startswith(_HIGHER_IS_BETTER)


def comparison_to_dict(comparison, paired=None) -> dict:
    """The comparison as plain values; metrics have the intervals of `paired`, None where it has none."""

    def spreads(values: dict) -> dict:
        return {key: {"mean": s.mean, "standard_deviation": s.standard_deviation} for key, s in values.items()}

    def with_intervals(row) -> dict:
        metrics = spreads(row.metrics)
        for key, one in metrics.items():
            one["low"], one["high"] = _interval(paired, row.name, key) or (None, None)
        return metrics

    rows = [
        {
            "name": row.name,
            "num_seeds": row.num_seeds,
            "metrics": with_intervals(row),
            "differences": spreads(row.differences),
        }
        for row in comparison.rows
    ]
    return {"baseline": comparison.baseline, "rows": rows}


def paired_to_dict(paired) -> dict:
    """The paired comparison as plain values under the key `paired`; None where there are no predictions."""
    if paired is None:
        return {"paired": None}
    differences = [
        {
            "name": one.name,
            "metric": one.metric,
            **asdict(one.difference),
            "p_value": one.p_value,
            "adjusted_p": one.adjusted_p,
            "num_seeds": one.num_seeds,
            "real": one.real,
        }
        for one in paired.differences
    ]
    means = {
        name: {metric: asdict(estimate) for metric, estimate in metrics.items()}
        for name, metrics in paired.means.items()
    }
    return {"paired": {"num_samples": paired.num_samples, "means": means, "differences": differences}}


def print_comparison(comparison, paired=None) -> None:
    """The tables, then which differences to the baseline are real.

    Args:
        comparison: Of the evaluations.
        paired: Of the predictions; without it the sentences are of the seeds alone.
    """
    print_tables(comparison, paired)
    for row in comparison.rows:
        if row.differences:
            said = verdict(row, comparison.baseline) if paired is None else "\n".join(sentences(row, paired))
            print(said)


def print_tables(comparison, paired=None) -> None:
    """Mean ± standard deviation over seeds, with the interval of `paired`, and the differences to the baseline."""
    several = any(row.num_seeds > 1 for row in comparison.rows)
    title = "mean ± standard deviation over seeds (number of seeds)" if several else "one seed each"
    over = "samples and seeds" if several else "samples"
    title += "" if paired is None else f"; below, where tested, the 95 % interval over {over}"
    shown = _shown(comparison, paired)
    for metrics in _in_columns(shown):
        rows = []
        for row in comparison.rows:
            cells = [_with_interval(row.shown(one), _interval(paired, row.name, one)) for one in metrics]
            rows.append([f"{row.name} ({row.num_seeds})", *cells])
        print_table(title, ["method", *metrics], rows)
    differences = [row for row in comparison.rows if row.differences]
    if not differences:
        return
    for metrics in _in_columns(shown):
        rows = [[row.name, *(row.differences[metric].shown(sign="+") for metric in metrics)] for row in differences]
        print_table(f"paired difference to {comparison.baseline}", ["method", *metrics], rows)


def _shown(comparison, paired) -> list[str]:
    """The metrics of the tables: the usual ones and those of sets that all methods have, or what was asked for."""
    metrics = SHOWN if paired is None else paired.metrics
    everywhere = [key for key in comparison.metrics if all(row.metrics[key].num_seeds for row in comparison.rows)]
    of_sets = [key for key in everywhere if key.endswith("/auroc")] if tuple(metrics) == SHOWN else []
    return [metric for metric in (*metrics, *of_sets) if metric in comparison.metrics]


def _in_columns(metrics: list[str]) -> list[list[str]]:
    """What goes into a table each: as many metrics as a terminal has room for."""
    return [metrics[start : start + _COLUMNS] for start in range(0, len(metrics), _COLUMNS)]


def seeds_note(paired, name: str) -> str:
    """How many seeds a method is compared with the baseline by, and whether either has others."""
    seeds = next(one.num_seeds for one in paired.differences if one.name == name)
    note = f"{seeds} seeds" if seeds > 1 else "one seed"
    of_each = paired.num_seeds[name], paired.num_seeds[paired.baseline]
    if set(of_each) != {seeds}:
        note += f" that both have, of {of_each[0]} and {of_each[1]}"
    return note if seeds > 1 else note + ", which says nothing of others"


def sentences(row, paired) -> list[str]:
    """A method against the baseline in words, metric by metric."""
    found = [one for one in paired.differences if one.name == row.name]
    title = f"{row.name} against {paired.baseline}"
    if not found:
        return [f"{title}: no common seed, too few to tell a difference from chance."]
    note = seeds_note(paired, row.name)
    count = sum(not math.isnan(one.p_value) for one in found)
    samples = amount(paired.num_samples, "sample")
    return [f"{title}, {samples}, {note}:", *(f"  {sentence(one, count)}" for one in found)]


def sentence(one, num_metrics: int) -> str:
    """One difference in words.

    Args:
        one: The `PairedDifference`.
        num_metrics: How many metrics Holm's correction is over.
    """
    words = _WORDS.get(one.metric, one.metric)
    value, low, high = one.difference.value, one.difference.low, one.difference.high
    if math.isnan(value):
        return f"{words} is undefined."
    if value < 0:
        value, low, high, direction = -value, -high, -low, "lower"
    else:
        direction = "higher"
    better = "better" if (direction == "higher") == higher_is_better(one.metric) else "worse"
    said = f"real, {better}" if one.real else "not told from chance"
    change = f"is {direction} by {value:.4f}" if value else "is the same"
    return (
        f"{words} {change} ({low:z.4f} to {high:z.4f}); "
        f"p = {one.adjusted_p:.2g} after Holm over {amount(num_metrics, 'metric')}: {said}."
    )


def ranks_of(found: list[tuple]) -> dict[str, dict[str, float]]:
    """Metric, then method: the mean rank over data sets of the method's mean over seeds, 1 the best.

    Args:
        found: Comparison and paired comparison, or None, of every data set.
    """
    from diffident.significance import mean_ranks

    ranks = {}
    shown = [[metric for metric in _shown(*one) if "/" not in metric] for one in found]
    for metric in (metric for metric in shown[0] if all(metric in one for one in shown)):
        values = [{row.name: row.metrics[metric].mean for row in one.rows} for one, _ in found]
        ranks[metric] = mean_ranks(values, higher_is_better=higher_is_better(metric))
    return ranks


def print_ranks(ranks: dict[str, dict[str, float]], num_data_sets: int) -> None:
    """A table of mean ranks, a row a method."""
    methods = list(next(iter(ranks.values())))
    rows = [[name, *(f"{ranks[metric][name]:.2f}" for metric in ranks)] for name in methods]
    print_table(f"mean rank over {num_data_sets} data sets, 1 is best", ["method", *ranks], rows)


def verdict(row, baseline: str) -> str:
    """One sentence on a method's paired differences: clear where their 95 % t interval over the seeds excludes 0."""
    from scipy.stats import t

    shown = [metric for metric in VERDICT if metric in row.differences] or list(row.differences)
    spreads = {metric: row.differences[metric] for metric in shown}
    seeds = max((spread.num_seeds for spread in spreads.values()), default=0)
    if seeds < 2:
        return f"{row.name} against {baseline}: {seeds or 'no'} common seed, too few to tell a difference from chance."
    found: dict[str, list[str]] = {"better": [], "worse": [], "not clearly different": []}
    for metric, spread in spreads.items():
        half = t.ppf(0.975, spread.num_seeds - 1) * spread.standard_deviation / math.sqrt(spread.num_seeds)
        clear = abs(spread.mean) > half
        better = (spread.mean > 0) == (higher_is_better(metric))
        key = ("better" if better else "worse") if clear else "not clearly different"
        found[key].append(f"{metric} ({spread.mean:+z.4f})")
    parts = [f"{key} in {', '.join(metrics)}" for key, metrics in found.items() if metrics]
    return f"{row.name} against {baseline}, {seeds} seeds: {'; '.join(parts)}."


def _interval(paired, name: str, metric: str) -> tuple[float, float] | None:
    """The ends of a method's interval; None where nothing was resampled."""
    estimate = None if paired is None else paired.means.get(name, {}).get(metric)
    return None if estimate is None or math.isnan(estimate.low) else (estimate.low, estimate.high)


def _with_interval(cell: str, ends: tuple[float, float] | None) -> str:
    return cell if ends is None else f"{cell}\n{ends[0]:z.4f} to {ends[1]:z.4f}"
