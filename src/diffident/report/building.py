"""From audits, runs and evaluations to everything that a report shows: what is printed and what is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.records import Suspects
from diffident.report import page_samples
from diffident.report.audit_charts import audit_charts
from diffident.report.charts import Chart, Table
from diffident.report.neighbours import find_neighbours
from diffident.report.prediction_charts import Method, prediction_charts, training_charts
from diffident.report.samples import Neighbours, Pictures, importance, make_pictures, page_rows, with_neighbours
from diffident.storage.features import FeatureSource

# Samples whose neighbours are looked up.
_MOST_WITH_NEIGHBOURS = 3_000
_MOST_CLASS_NUMBER = 100_000
# Of the bytes that a page may have, what is left for thumbnails, and for texts, beside rows, code and plots.
_PICTURE_SHARE, _TEXT_SHARE = 0.72, 0.5


@dataclass(frozen=True)
class AuditInput:
    """An audit with what its samples are shown from.

    Attributes:
        suspects: The audit.
        features: Its features, or None: then there are no neighbours and no class map.
        dataset: The samples, or None: then ids and labels are all there is to show.
    """

    suspects: Suspects
    features: FeatureSource | None = None
    dataset: Dataset | None = None


@dataclass(frozen=True)
class Limits:
    """How much a page holds.

    Attributes:
        rows: Samples that are listed at most; of a larger data set those that matter most.
        thumbnails: Thumbnails at most.
        megabytes: Size that the page keeps to, in millions of bytes.
    """

    rows: int = 50_000
    thumbnails: int = 6_000
    megabytes: float = 15.0

    def __post_init__(self):
        for name, least in (("rows", 1), ("thumbnails", 0), ("megabytes", 2)):
            if not getattr(self, name) >= least:
                raise InputError(f"`{name}` must be at least {least}; got {getattr(self, name)}. Leave it out.")


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        title: Of the page.
        facts: Name and value of what the report is made from.
        sentences: The verdict in words, most important first.
        tables: The verdict's table first.
        charts: In the order of the page.
        samples: JSON columns of the samples, or None: rows, contents, neighbours, pictures.
        notes: What a reader should know: samples that are left out, inputs that lack.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    samples: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())


def build_report(
    *,
    title: str,
    audit: AuditInput | None = None,
    methods: Sequence[Method] = (),
    logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]] | None = None,
    sentences: Sequence[str] = (),
    tables: Sequence[Table] = (),
    charts: Sequence[Chart] = (),
    facts: Sequence[tuple[str, str]] = (),
    limits: Limits | None = Limits(),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Compute all plots and gather all samples.

    Args:
        title: Of the page.
        audit: Samples to show, or None.
        methods: Predictions, for their plots.
        logs: For each method, for each seed, the lines of its `metrics.jsonl`.
        sentences: The verdict in words.
        tables: The verdict's table first.
        charts: Further plots, after those of the methods.
        facts: Name and value of what else the report is made from.
        limits: How much the page holds; None leaves the samples out, for a page that asks for them.
        progress: Called with (thumbnails done, thumbnails).

    Raises:
        InputError: labels that are no class numbers, or ids of the audit that the data set does not have.
    """
    every: list[Chart] = [*prediction_charts(methods), *charts, *training_charts(logs or {})]
    samples, notes, told = None, [], list(sentences)
    if audit is not None:
        _check_labels(audit.suspects)
        blocks = None if audit.features is None else audit.features.blocks
        every += audit_charts(audit.suspects, blocks)
        if limits is not None:
            samples, notes = _gather_samples(audit, limits, progress)
        facts = [*facts, *_audit_facts(audit)]
        told += audit_sentences(audit.suspects)
    return Report(title, tuple(facts), tuple(told), tuple(tables), tuple(every), samples, tuple(notes))


def audit_sentences(suspects: Suspects) -> list[str]:
    """What the audit found, in words."""
    count, found = len(suspects.table), int(suspects.suspect.sum())
    sentences = [f"{found:,} of {count:,} samples are suspects: another class is nearer than their own."]
    if suspects.wrong_share is not None:
        low, value, high = (round(getattr(suspects.wrong_share, key) * count) for key in ("low", "value", "high"))
        sentences.append(f"About {value:,} labels are wrong, at least {low:,} and at most {high:,}.")
    return sentences


def _audit_facts(audit: AuditInput) -> list[tuple[str, str]]:
    table = audit.suspects.table
    facts = [("samples", f"{len(table):,}"), ("classes", f"{len(np.unique(table.labels)):,}")]
    facts += [(name, str(table.metadata[name])) for name in ("method", "encoder") if name in table.metadata]
    return facts if audit.dataset is None else [("data", audit.dataset.name), *facts]


def _check_labels(suspects: Suspects) -> None:
    for name, labels in (("label", suspects.table.labels), ("nearest_label", suspects.table.nearest_labels)):
        wrong = (labels < 0) | (labels >= _MOST_CLASS_NUMBER)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"`{name}` must be in [0, {_MOST_CLASS_NUMBER}); got {labels[row]} at row {row} of the audit. "
                "Re-index the labels."
            )


def _gather_samples(
    audit: AuditInput, limits: Limits, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, Any], list[str]]:
    suspects, dataset, notes = audit.suspects, audit.dataset, []
    order = importance(suspects)
    neighbours = _neighbours(audit, order)
    rows = page_rows(order, neighbours, limits.rows)
    if len(rows) < len(order):
        notes.append(
            f"The page lists the {len(rows):,} of {len(order):,} samples that matter most; `diffident serve` shows all."
        )
    content: dict[str, Any] = {
        "total": len(order),
        "modality": None if dataset is None else dataset.modality,
        "label_names": page_samples.label_names(suspects.table),
        "columns": page_samples.sample_columns(suspects, rows),
        "neighbours": None if neighbours is None else page_samples.neighbour_columns(neighbours, rows),
    }
    if dataset is None:
        notes.append("The samples themselves are not shown, as no data set was given: use --data DATA.")
        return content, notes
    positions = page_samples.join_samples(suspects.table, dataset)
    budget = int(limits.megabytes * 1e6)
    if dataset.modality == "image":
        pictures = _pictures(dataset, positions, with_neighbours(order, neighbours), limits, progress)
        content["pictures"] = page_samples.picture_columns(pictures, rows)
        notes += [f"Not shown: {error}" for error in pictures.unreadable[:20]]
    else:
        short, whole = page_samples.sample_contents(dataset, positions, rows, order, int(budget * _TEXT_SHARE))
        content |= {"contents": short, "whole": whole}
    return content, notes


def _neighbours(audit: AuditInput, order: np.ndarray) -> Neighbours | None:
    if audit.features is None:
        return None
    return find_neighbours(audit.features.blocks, audit.suspects.table, order[:_MOST_WITH_NEIGHBOURS])


def _pictures(dataset, positions, rows, limits: Limits, progress) -> Pictures:
    return make_pictures(
        dataset,
        lambda row: int(positions[row]),
        rows,
        most=min(limits.thumbnails, len(positions)),
        budget=int(limits.megabytes * 1e6 * _PICTURE_SHARE),
        progress=progress,
    )
