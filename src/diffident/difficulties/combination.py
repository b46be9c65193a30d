"""Features of several encoders or layers together: the mean of their ranks, or one stack of features."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from diffident.difficulties.posterior import keep_classes
from diffident.difficulties.protocol import Blocks
from diffident.difficulties.scoring import score_features
from diffident.difficulties.weights import MOST_DISTRUST, scaled_rank
from diffident.errors import IdMismatchError, InputError
from diffident.options import check_choice
from diffident.records import DifficultyTable, positions_of

COMBINATIONS = ("mean-rank", "stack")


@runtime_checkable
class LabelledSource(Protocol):
    """Labelled features that can be read again and again, such as `FeatureSource`."""

    @property
    def ids(self) -> np.ndarray:
        """Stable ids (n,)."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """Classes, int64 (n,)."""
        ...

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Name of each class, or None."""
        ...

    @property
    def encoder(self) -> str:
        """The encoder's name."""
        ...

    def blocks(self) -> Iterator[Tensor]:
        """The features [b, d] in the order of the ids."""
        ...


def score_combined(
    sources: Sequence[LabelledSource],
    *,
    combine: str = "mean-rank",
    method: str = "rmd",
    num_classes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> DifficultyTable:
    """Difficulty by several features of the same samples, joined by id, in the order of the first.

    `mean-rank`: every source is scored on its own. Difficulty is the mean of the ranks, in [0, 1]; the nearest label
    is the one that most sources name (the given one, then the lowest, among ties); the margin is the mean over
    sources of the margin in standard deviations of that source's difficulty, 0 where the nearest label is the given.
    Distrust, where the method knows it, is the mean too; a class keeps at least as many as with one source. The likely
    label is that of the source that distrusts the given one most; candidates are those of all, each with its
    probability divided by the number of sources.

    `stack`: every source is scaled to a whole variance of 1, and the features are put side by side and scored once.

    Args:
        sources: At least two, of the same samples with the same labels.
        combine: One of `COMBINATIONS`.
        method: A name in `METHODS`.
        num_classes: As for `score_features`.
        progress: As for `score_features`, for one source after the other.
        options: Of the method.

    Returns:
        The table; its metadata has `combine`, every source's own metadata, and `agreement`: for each two sources the
        Spearman correlation of the difficulties and the Jaccard index of the suspects (null where undefined).

    Raises:
        IdMismatchError: the ids are not the same; InputError: the labels are not.
    """
    check_choice("combine", combine, COMBINATIONS)
    if len(sources) < 2:
        raise InputError(f"`sources` must be at least 2 to be combined; got {len(sources)}. Use score_features.")
    first = sources[0]
    if first.labels is None:
        raise InputError("`labels` must be given for the first source; got none. Extract with labels.")
    rows = [_positions(first, source, number) for number, source in enumerate(sources, start=1)]
    shared = {"method": method, "num_classes": num_classes, "label_names": first.label_names, "progress": progress}
    shared |= options
    tables = [
        score_features(_in_order(source, places), first.ids, first.labels, encoder=source.encoder, **shared)
        for source, places in zip(sources, rows, strict=True)
    ]
    encoder = " + ".join(source.encoder for source in sources)
    if combine == "stack":
        ordered = [_in_order(source, places) for source, places in zip(sources, rows, strict=True)]
        table = score_features(stacked(ordered), first.ids, first.labels, encoder=encoder, **shared)
    else:
        table = _mean_rank(tables, encoder)
    table.metadata.update(combine=combine, agreement=agreement(tables), sources=[dict(one.metadata) for one in tables])
    return table


def agreement(tables: list[DifficultyTable]) -> list[dict[str, Any]]:
    """Spearman correlation of difficulty and Jaccard index of suspects, for each two tables of the same samples."""
    found = []
    for one, other in combinations(range(len(tables)), 2):
        a, b = tables[one], tables[other]
        varied = min(np.ptp(a.difficulty), np.ptp(b.difficulty)) > 0
        either = int(((a.margin > 0) | (b.margin > 0)).sum())
        both = int(((a.margin > 0) & (b.margin > 0)).sum())
        found.append(
            {
                "sources": [one + 1, other + 1],
                "encoders": [a.metadata["encoder"], b.metadata["encoder"]],
                "spearman": float(np.corrcoef(a.rank, b.rank)[0, 1]) if varied else None,
                "jaccard_suspects": both / either if either else None,
            }
        )
    return found


def stacked(parts: list[Blocks]) -> Blocks:
    """The features of all parts side by side, each scaled to a whole variance of 1; blocks need not match."""
    scales = [_whole_variance(blocks) ** -0.5 for blocks in parts]

    def blocks() -> Iterator[Tensor]:
        streams = [iter(part()) for part in parts]
        held = [next(stream, None) for stream in streams]
        while all(block is not None for block in held):
            size = min(len(block) for block in held if block is not None)
            taken = [block[:size] for block in held if block is not None]
            yield torch.cat([_widened(block) * scale for block, scale in zip(taken, scales, strict=True)], dim=1)
            held = [
                block[size:] if block is not None and len(block) > size else next(stream, None)
                for block, stream in zip(held, streams, strict=True)
            ]

    return blocks


def _mean_rank(tables: list[DifficultyTable], encoder: str) -> DifficultyTable:
    labels = tables[0].labels
    nearest = np.stack([table.nearest_labels for table in tables])
    votes = (nearest[:, None] == nearest[None]).sum(axis=0)  # for every source's choice, how many sources share it
    given = (nearest == labels).sum(axis=0)
    best = votes.max(axis=0)
    lowest = np.where(votes == best, nearest, np.iinfo(np.int64).max).min(axis=0)
    chosen = np.where(given >= best, labels, lowest)
    spread = np.array([table.difficulty.std() or 1.0 for table in tables])[:, None]
    margin = (np.stack([table.margin for table in tables]) / spread).mean(axis=0)
    difficulty = np.mean([table.rank for table in tables], axis=0)
    metadata = {key: tables[0].metadata[key] for key in ("method", "num_samples", "num_classes")}
    metadata |= {"encoder": encoder}
    if all("num_features" in table.metadata for table in tables):  # training dynamics have none
        metadata["num_features"] = sum(table.metadata["num_features"] for table in tables)
    margin = np.where(chosen == labels, 0.0, margin)
    distrusts = [table.distrust for table in tables if table.distrust is not None]
    of_belief: tuple[np.ndarray, ...] = ()
    if distrusts:
        mean = torch.from_numpy(np.mean(distrusts, axis=0))
        distrust = keep_classes(mean, torch.from_numpy(labels)).numpy()
        metadata["num_distrusted"] = int((distrust > MOST_DISTRUST).sum())
        named = np.stack([table.likely_labels for table in tables if table.likely_labels is not None])
        likely = np.take_along_axis(named, np.argmax(distrusts, axis=0)[None], axis=0)[0]
        of_belief = distrust, likely, *_candidates_of(tables)
    columns = (tables[0].ids, labels, difficulty, scaled_rank(difficulty), chosen, margin)
    return DifficultyTable(*columns, metadata, tables[0].label_names, *of_belief)


def _candidates_of(tables: list[DifficultyTable]) -> tuple[np.ndarray, ...]:
    """Candidates of all tables side by side, and their probabilities, which sum to 1."""
    classes = [table.candidates for table in tables if table.candidates is not None]
    probs = [table.candidate_probs for table in tables if table.candidate_probs is not None]
    if not classes:
        return ()
    return np.concatenate(classes, axis=1), np.concatenate(probs, axis=1) / np.float32(len(probs))


def _positions(first: LabelledSource, source: LabelledSource, number: int) -> np.ndarray:
    """Rows of the source in the order of the first one's ids."""
    names = {"what": "the first features", "where": f"features {number}"}
    rows = positions_of(source.ids, first.ids, **names)
    if len(source.ids) != len(first.ids):
        known = {str(sample) for sample in first.ids}
        extra = [str(sample) for sample in source.ids if str(sample) not in known]
        shown = ", ".join(repr(sample) for sample in extra[:3])
        raise IdMismatchError(
            f"{len(extra)} of {len(source.ids)} ids of features {number} are not in the first features: first {shown}. "
            "Extract both from the same dataset."
        )
    if source.labels is not None and first.labels is not None:
        wrong = np.flatnonzero(source.labels[rows] != first.labels)
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"`labels` of features {number} must be those of the first; got {source.labels[rows][row]}, not "
                f"{first.labels[row]}, for {str(first.ids[row])!r}. Choose the same label column in both."
            )
    return rows


def _in_order(source: LabelledSource, rows: np.ndarray) -> Blocks:
    """The source's blocks; where its order is another, all of it is read into memory and put in order."""
    if np.array_equal(rows, np.arange(len(rows))):
        return source.blocks
    places = torch.from_numpy(rows)

    def blocks() -> Iterable[Tensor]:
        parts = list(source.blocks())
        values = torch.cat(parts)
        return [values[chosen] for chosen in places.split(max(len(part) for part in parts))]

    return blocks


def _whole_variance(blocks: Blocks) -> float:
    """Sum over features of the variance; 1 where nothing varies."""
    size, shift, total, squares = 0, None, 0.0, 0.0
    for block in blocks():
        values = block.double()
        shift = values.mean(dim=0) if shift is None else shift
        moved = values - shift
        total, squares = total + moved.sum(dim=0), squares + float(moved.square().sum())
        size += len(block)
    if not size:
        raise InputError("`blocks` must hold at least one sample; got none. Extract features first.")
    variance = squares / size - float((torch.as_tensor(total) / size).square().sum())
    return variance if variance > 1e-12 * max(squares / size, 1e-300) else 1.0


def _widened(block: Tensor) -> Tensor:
    return block if block.dtype == torch.float64 else block.float()
