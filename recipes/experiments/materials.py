"""The data of a recipe, its features and its difficulty, each opened or made once."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from diffident import extract, open_dataset, open_encoder
from diffident.data.classes import in_classes_of
from diffident.data.dataset import Dataset
from diffident.data.samples import IMAGE_SUFFIXES, ReadImageFile, ReadVector
from diffident.difficulties import score_features
from diffident.difficulties.targets import SoftTargets
from diffident.difficulties.weights import MOST_DISTRUST, scaled_rank
from diffident.errors import InputError
from diffident.label_noise import flip_labels
from diffident.losses import LOSSES
from diffident.records import DifficultyTable, Features, positions_of
from diffident.storage.difficulty_table import read_difficulty_table, write_difficulty_table
from diffident.storage.dynamics import read_dynamics
from diffident.storage.features import open_features
from diffident.storage.runs import RunFolder
from experiments.recipe import DataChange, DifficultySpec, Method, Recipe

_SLICE = re.compile(r"(?P<spec>.*)\[(?P<but>!?)(?P<first>-?\d*):(?P<last>-?\d*)(:(?P<step>[1-9]\d*))?\]")
NAMED = ("hf:", "torchvision:", "digits")
Log = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A recipe, where its data are, and where its results go.

    Attributes:
        recipe: What is done.
        data: Folder that the recipe's files are in.
        out: Folder of everything that is made.
        features: Training features that were made before, or None.
        threads: Of every training.
    """

    recipe: Recipe
    data: Path
    out: Path
    features: Path | None = None
    threads: int = 1


class Materials:
    """What trainings are made from; each thing is opened when it is first asked for.

    Args:
        place: The recipe and its folders.
        log: Called with lines for people.
        extracts: Whether features are extracted, or compared with what is there; else they are only read, as another
            process has seen to them, and no encoder is opened.
    """

    def __init__(self, place: Place, log: Log = lambda line: None, *, extracts: bool = True):
        self.place, self.recipe, self._log, self._extracts = place, place.recipe, log, extracts
        self._features: dict[tuple[str | None, int | None, str], Features] = {}

    @cached_property
    def raw_train(self) -> Dataset:
        """The training samples as the file has them."""
        spec = self.recipe.data
        dataset = open_split(self.place.data, spec.train, label_column=spec.label_column)
        return evenly(dataset, spec.limit)

    @cached_property
    def train(self) -> Dataset:
        """What is trained on: samples, or their features."""
        return self._inputs(self.raw_train, "train")

    @cached_property
    def validation(self) -> Dataset:
        """What strengths and temperatures are chosen on."""
        return self._inputs(open_split(self.place.data, self.recipe.data.validation), "validation")

    @cached_property
    def evaluated(self) -> dict[str, Dataset]:
        """What every run predicts: `validation`, `test`, `ood-NAME` without labels, `extra-NAME`."""
        data, folder = self.recipe.data, self.place.data
        sets = {"test": open_split(folder, data.test)}
        for name, spec in data.ood.items():
            sets[f"ood-{name}"] = replace(open_outside(folder, spec), labels=None, label_names=None)
        for name, spec in data.extra.items():
            sets[f"extra-{name}"] = joined_by_name(open_split(folder, spec), self.raw_train, name)
        inputs = {name: self._inputs(dataset, name) for name, dataset in sets.items()}
        return {"validation": self.validation, **inputs}

    def training_data(self, change: DataChange, seed: int) -> Dataset:
        """The training data after what a method does to them."""
        return changed(self.train, change, seed)

    def features(self, spec: DifficultySpec, dataset: Dataset, split: str = "train") -> Features:
        """Features of a split by the encoder and image size of `spec`, in the data set's order; extracted once."""
        key = spec.encoder, spec.image_size, split
        if key not in self._features:
            usual = self.recipe.difficulty
            if self.place.features is not None and key == (usual.encoder, usual.image_size, "train"):
                self._features[key] = taken(open_features(self.place.features).load(), dataset)
            else:
                self._features[key] = self._extracted(*key, dataset)
        return self._features[key]

    def needs_difficulty(self, method: Method) -> bool:
        """Whether a method's loss has weights made of difficulty."""
        return LOSSES[self.recipe.source_of(method).loss].needs_weights

    def table(self, spec: DifficultySpec, dataset: Dataset, seed: int) -> DifficultyTable:
        """The difficulty of training samples, scored on the labels that they have now; kept in a file."""
        features = taken(self.features(spec, self.raw_train), dataset)
        assert dataset.labels is not None  # `train` has refused data without
        digest = hashlib.sha256("\n".join(map(str, dataset.ids)).encode() + np.asarray(dataset.labels).tobytes())
        digest.update(features.values.numpy().tobytes())
        digest.update(json.dumps([spec.method, spec.options, dataset.num_classes], sort_keys=True).encode())
        file = self.place.out / "difficulty" / f"{spec.method}-{digest.hexdigest()[:16]}.parquet"
        if not file.exists():
            table = score_features(
                lambda: iter(features.values.split(16_384)),
                dataset.ids,
                np.asarray(dataset.labels),
                num_classes=dataset.num_classes,
                method=spec.method,
                encoder=features.encoder,
                label_names=dataset.label_names,
                **spec.options,
            )
            write_difficulty_table(table, file)
        return rearranged(read_difficulty_table(file), spec, seed)

    def _inputs(self, dataset: Dataset, split: str) -> Dataset:
        if self.recipe.data.inputs == "samples":
            return dataset
        features = self.features(self.recipe.difficulty, dataset, split)
        values = features.values.float().numpy()
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        return replace(dataset, modality="vector", read=ReadVector(values), fingerprint=digest)

    def _extracted(self, encoder: str | None, size: int | None, split: str, dataset: Dataset) -> Features:
        if encoder is None:
            raise InputError(
                f"`difficulty.encoder` must be given to extract {split}; got none. Add --encoder ENC or --features DIR."
            )
        folder = self.place.out / "features" / slug(f"{encoder} at {size}" if size else encoder) / split
        if not self._extracts:
            return taken(open_features(folder).load(), dataset)
        if not (folder / "manifest.json").exists():
            self._log(f"Extracting {len(dataset):,} samples of {dataset.name} with {encoder}.")
        source = extract(dataset, open_encoder(encoder, image_size=size), out=folder)
        return taken(source.load(), dataset)  # type: ignore[union-attr]


def check_there(place: Place) -> None:
    """Refuse a folder that lacks files of the recipe, without opening any; all of them are named."""
    data = place.recipe.data
    specs = [data.train, data.validation, data.test, *data.ood.values(), *data.extra.values()]
    plain = [spec if found is None else found["spec"] for spec in specs for found in [_SLICE.fullmatch(spec)]]
    paths = [place.data / spec for spec in dict.fromkeys(plain) if not spec.startswith(NAMED)]
    missing = [str(path) for path in paths if not (path.exists() or _is_split(path))]
    if missing:
        raise InputError(f"`--data` must hold what the recipe names; it lacks {', '.join(missing)}. Check the folder.")


def _is_split(path: Path) -> bool:
    """Whether this is FOLDER:SPLIT."""
    folder, colon, _ = str(path).rpartition(":")
    return bool(colon) and Path(folder).is_dir()


def slug(text: str) -> str:
    """A name for a folder: the text's letters and a digest of the whole."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", text)[-40:].strip("-.")
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def open_split(folder: Path, spec: str, *, label_column: str | None = None) -> Dataset:
    """A data set of the recipe; `SPEC[first:last:step]` are some rows as Python takes them, `SPEC[!...]` the others."""
    found = _SLICE.fullmatch(spec)
    plain = spec if found is None else found["spec"]
    where = plain if plain.startswith(NAMED) else str(folder / plain)
    dataset = open_dataset(where, label_column=label_column)
    if found is None:
        return dataset
    first, last, step = (int(found[part]) if found[part] else None for part in ("first", "last", "step"))
    every = np.arange(len(dataset))
    rows = np.setdiff1d(every, every[first:last:step]) if found["but"] else every[first:last:step]
    if not len(rows):
        raise InputError(f"`data` must hold samples; {spec} takes none of {len(dataset)}. Mend the numbers.")
    return dataset.select(rows)


def open_outside(folder: Path, spec: str) -> Dataset:
    """An out-of-distribution set: as others, or a folder of pictures without class folders."""
    path = folder / spec
    if not path.is_dir() or any(entry.is_dir() and entry.name[0] != "." for entry in path.iterdir()):
        return open_split(folder, spec)
    names = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    if not names:
        return open_split(folder, spec)  # says what is wrong
    ids = np.array(names, dtype=object)
    stats = [path.joinpath(name).stat() for name in names]
    digest = hashlib.sha256(json.dumps([names, [(s.st_size, s.st_mtime_ns) for s in stats]]).encode()).hexdigest()
    return Dataset(path.name, "image", ids, None, ReadImageFile(path.resolve(), tuple(names), ids), digest)


def joined_by_name(dataset: Dataset, train: Dataset, name: str) -> Dataset:
    """A labelled set whose classes are some of the training data's, with the numbers that they have there.

    Numbers without names, in one or the other, are the training data's already.
    """
    if dataset.labels is None:
        raise InputError(f"`data.extra.{name}` must have labels; got none at {dataset.name}. Make it an ood set.")
    if dataset.label_names is None or train.label_names is None:
        return replace(dataset, label_names=train.label_names)
    return in_classes_of(dataset, train.num_classes, train.label_names, "the training data")


def table_of_run(run: RunFolder, spec: DifficultySpec, dataset: Dataset, seed: int) -> DifficultyTable:
    """The difficulty of the samples that a run was trained on, scored from what it saw of them."""
    table = score_features(
        lambda: iter(()),
        dataset.ids,
        np.asarray(dataset.labels),
        num_classes=dataset.num_classes,
        method=spec.method,
        encoder=run.settings.model,
        label_names=dataset.label_names,
        dynamics=read_dynamics(run.path).aligned(dataset.ids),
        **spec.options,
    )
    return rearranged(table, spec, seed)


def taken(features: Features, dataset: Dataset) -> Features:
    """The features of these samples, in their order."""
    rows = positions_of(features.ids, dataset.ids, what=dataset.name, where="the features")
    if len(rows) == len(features) and np.array_equal(rows, np.arange(len(rows))):
        return features
    return Features(dataset.ids, features.values[torch.from_numpy(rows)], None, None, features.encoder)


def evenly(dataset: Dataset, limit: int | None) -> Dataset:
    """So many samples, evenly spaced; all where there are no more, or no limit."""
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.select(np.arange(limit) * len(dataset) // limit)


def changed(dataset: Dataset, change: DataChange, seed: int) -> Dataset:
    """Fewer samples, then a long tail, then wrong labels."""
    dataset = evenly(dataset, change.limit)
    generator = np.random.default_rng(seed)
    if change.imbalance is not None:
        dataset = dataset.select(
            _long_tail(np.asarray(dataset.labels), dataset.num_classes, change.imbalance, generator)
        )
    if change.label_noise:
        right = np.asarray(dataset.labels)
        labels = flip_labels(right, dataset.num_classes, change.label_noise, generator)
        dataset = replace(dataset, labels=labels)
    return dataset


def _long_tail(labels: np.ndarray, num_classes: int, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Rows of which class k keeps size * ratio ** (-k / (K - 1)), at random; size is that of the largest class."""
    size, kept = np.bincount(labels).max(), []
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        count = max(1, round(size * ratio ** (-label / max(num_classes - 1, 1))))
        kept.append(generator.permutation(rows)[:count])
    return np.sort(np.concatenate(kept))


def rearranged(table: DifficultyTable, spec: DifficultySpec, seed: int) -> DifficultyTable:
    """The table with its difficulty turned round, the same for all, or given to random other samples (of the class).

    Which labels are not to be believed goes with it, but not which are likelier: those samples are left out. Turned
    round or the same for all, nothing is said of the labels. But where it is done to the believed samples alone, the
    others are left out, or relabelled, as before.

    Probabilities of the classes go to random other samples of the same label, as those of others would be wrong
    labels; or the samples of a label all get the mean of theirs.
    """
    if not (spec.constant or spec.invert or spec.shuffle or spec.shuffle_within_class):
        return table
    table = _with_others_candidates(table, spec, seed)
    kept, likely = (table.distrust, table.likely_labels) if spec.of_believed else (None, None)
    if spec.constant:
        level = np.zeros_like(table.difficulty)
        return replace(table, difficulty=level, rank=scaled_rank(level), distrust=kept, likely_labels=likely)
    difficulty = -table.difficulty if spec.invert else table.difficulty
    places, generator = np.arange(len(table)), np.random.default_rng(seed)
    for rows in _groups(table, spec):
        places[rows] = generator.permutation(rows)
    distrust = kept
    if not (spec.of_believed or spec.invert or table.distrust is None):
        distrust = table.distrust[places]
    moved = difficulty[places]
    return replace(table, difficulty=moved, rank=scaled_rank(moved), distrust=distrust, likely_labels=likely)


def _with_others_candidates(table: DifficultyTable, spec: DifficultySpec, seed: int) -> DifficultyTable:
    """The table with the probabilities of the classes of others with the same label, or with the mean of these."""
    if table.candidates is None or table.candidate_probs is None or spec.invert:
        return table
    generator, places = np.random.default_rng(seed), np.arange(len(table))
    if not spec.constant:
        for rows in _of_classes(table, _moved(table, spec)):
            places[rows] = generator.permutation(rows)
        return replace(table, candidates=table.candidates[places], candidate_probs=table.candidate_probs[places])
    num_classes = int(table.candidates.max()) + 1
    named = SoftTargets(torch.from_numpy(table.candidates), torch.from_numpy(table.candidate_probs))
    probs = named.over(num_classes).numpy()
    for rows in _of_classes(table, _moved(table, spec)):
        probs[rows] = probs[rows].mean(axis=0)
    return replace(table, candidates=np.tile(np.arange(num_classes), (len(table), 1)), candidate_probs=probs)


def _groups(table: DifficultyTable, spec: DifficultySpec) -> Iterator[np.ndarray]:
    """Rows among which difficulties change places."""
    moved = _moved(table, spec)
    if spec.shuffle:
        yield np.flatnonzero(moved)
    elif spec.shuffle_within_class:
        yield from _of_classes(table, moved)


def _moved(table: DifficultyTable, spec: DifficultySpec) -> np.ndarray:
    """Samples that anything is done to."""
    if spec.of_believed and table.distrust is not None:
        return table.distrust <= MOST_DISTRUST
    return np.ones(len(table), dtype=bool)


def _of_classes(table: DifficultyTable, moved: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of each label."""
    for label in np.unique(table.labels):
        yield np.flatnonzero(moved & (table.labels == label))


def fingerprints(sets: dict[str, Dataset]) -> dict[str, list]:
    """What tells these sets from others."""
    return {name: [len(one), one.fingerprint] for name, one in sets.items()}
