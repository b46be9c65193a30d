"""Plots of an audit: how hard the classes are, and which are taken for each other."""

import numpy as np
import torch

from diffident.auditing import name_of
from diffident.difficulties.protocol import Blocks
from diffident.difficulties.rmd import gaussians_of
from diffident.records import DifficultyTable, Suspects
from diffident.report.charts import Chart, Histogram, Matrix, Points, Ranges, numbers, plain_names

# More classes than this are not told apart in a plot: those with the most to see are shown.
MOST_CLASSES = 40
_NUM_BINS = 40
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Links for each class on the map, the strongest of all.
_LINKS_A_CLASS = 2


def audit_charts(suspects: Suspects, blocks: Blocks | None) -> list[Chart]:
    """Distribution of difficulty, by class too; given against nearest class; with features a map of the classes."""
    charts = [difficulty_histogram(suspects), difficulty_by_class(suspects), nearest_class_matrix(suspects)]
    if blocks is not None and len(np.unique(suspects.table.labels)) > 2:
        charts.append(class_map(suspects, blocks))
    return charts


def class_names(table: DifficultyTable) -> tuple[str, ...]:
    """A name for every class number that occurs."""
    count = 1 + int(max(table.labels.max(), table.nearest_labels.max()))
    return plain_names([name_of(label, table.label_names) for label in range(count)])


def difficulty_histogram(suspects: Suspects) -> Histogram:
    """Difficulty of all samples, the suspects apart; the outermost thousandth is in the end bins."""
    values = suspects.table.difficulty
    low, high = np.quantile(values, [0.001, 0.999])
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, _NUM_BINS + 1)
    inside = np.clip(values, low, high)
    groups = {"nearest to its own class": ~suspects.suspect, "suspects": suspects.suspect}
    counts = {name: np.histogram(inside[chosen], edges)[0] for name, chosen in groups.items()}
    return Histogram(
        key="difficulty",
        title="Difficulty of all samples",
        note="A sample is a suspect where another class is nearer than its own.",
        x_label="difficulty",
        y_label="samples",
        edges=numbers(edges),
        groups=tuple((name, numbers(count)) for name, count in counts.items()),
        counts=tuple(numbers(count) for count in counts.values()),
    )


def difficulty_by_class(suspects: Suspects) -> Ranges:
    """Quantiles of difficulty of each class, the hardest median first."""
    table, names = suspects.table, class_names(suspects.table)
    present = np.unique(table.labels)
    quantiles = {label: np.quantile(table.difficulty[table.labels == label], _QUANTILES) for label in present.tolist()}
    order = sorted(quantiles, key=lambda label: -quantiles[label][2])[:MOST_CLASSES]
    cut = "" if len(order) == len(present) else f" The {len(order)} hardest of {len(present)} classes."
    return Ranges(
        key="difficulty-by-class",
        title="Difficulty by class",
        note=f"Thick: the middle half; thin: 5 to 95 %; the mark is the median; hardest class first.{cut}",
        x_label="difficulty",
        y_label="given class",
        names=tuple(names[label] for label in order),
        quantiles=tuple(numbers(quantiles[label]) for label in order),
        counts=numbers([(table.labels == label).sum() for label in order]),
        marks=numbers([suspects.suspect[table.labels == label].mean() for label in order]),
        mark_label="share of suspects",
    )


def nearest_class_matrix(suspects: Suspects) -> Matrix:
    """Share of each given class that every class is nearest to."""
    table = suspects.table
    return confusion(
        table.labels,
        table.nearest_labels,
        class_names(table),
        key="nearest-class",
        title="Given and nearest class",
        note="Share of the samples of a given class (row) that a class (column) is nearest to.",
        labels=("nearest class", "given class"),
    )


def confusion(
    given: np.ndarray,
    found: np.ndarray,
    names: tuple[str, ...],
    *,
    key: str,
    title: str,
    note: str,
    labels: tuple[str, str],
) -> Matrix:
    """Shares of the rows; of many classes those that are most often taken for another or another for them."""
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (given, found), 1)
    wrong = counts - np.diag(np.diag(counts))
    involved = wrong.sum(axis=0) + wrong.sum(axis=1)
    kept = np.arange(len(names))
    if len(names) > MOST_CLASSES:
        kept = np.sort(np.argsort(-involved, kind="stable")[:MOST_CLASSES])
        note += f" The {len(kept)} classes of {len(names)} that are taken for others most."
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    shown = tuple(names[label] for label in kept)
    return Matrix(
        key=key,
        title=title,
        note=note,
        x_label=labels[0],
        y_label=labels[1],
        rows=shown,
        columns=shown,
        values=tuple(numbers(row) for row in shares[np.ix_(kept, kept)]),
        counts=tuple(numbers(row) for row in counts[np.ix_(kept, kept)]),
    )


def class_map(suspects: Suspects, blocks: Blocks) -> Points:
    """The class means in the two directions that tell them apart best, their difficulty, and who is taken for whom."""
    table, names = suspects.table, class_names(suspects.table)
    gaussians = gaussians_of(blocks, table.labels, len(names), "auto")
    present = gaussians.counts > 0
    means = gaussians.projected_means
    # The mean of the classes in the middle, and the plane in which they spread most: distances between classes are
    # Mahalanobis distances, as in the difficulty itself.
    centred = torch.where(present[:, None], means - means[present].mean(dim=0), torch.zeros_like(means))
    plane = torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    # The signs of singular vectors are arbitrary: the largest entry is made positive, so that the map stays put.
    if plane.numel():  # else no direction tells the classes apart
        plane = plane * plane.gather(0, plane.abs().argmax(dim=0, keepdim=True)).sign()
    places = np.zeros((len(means), 2))
    places[:, : plane.shape[1]] = (centred @ plane).numpy()
    kept = present.nonzero().flatten().numpy()
    members = [table.labels == label for label in kept]
    return Points(
        key="class-map",
        title="Class map of difficulty",
        note="Near classes are alike; a line joins classes that are taken for each other, the wider the more.",
        x_label="first direction between classes",
        y_label="second direction",
        names=tuple(names[label] for label in kept),
        x=numbers(places[kept, 0]),
        y=numbers(places[kept, 1]),
        colours=numbers([np.median(table.difficulty[chosen]) for chosen in members]),
        sizes=numbers([chosen.sum() for chosen in members]),
        colour_label="median difficulty",
        size_label="samples",
        links=_links(table, kept),
    )


def _links(table: DifficultyTable, kept: np.ndarray) -> tuple[tuple[int, int, float], ...]:
    place = {int(label): number for number, label in enumerate(kept)}
    other = table.labels != table.nearest_labels
    pairs = np.sort(np.column_stack([table.labels[other], table.nearest_labels[other]]), axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[: _LINKS_A_CLASS * len(kept)]
    chosen = [(found[row].tolist(), float(counts[row])) for row in order]
    return tuple((place[a], place[b], count) for (a, b), count in chosen if a in place and b in place)
