"""From a data set to one tensor in memory: fitted on the training data, saved in the run."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.models.foreign import image_input, transformers_tokenizer
from diffident.models.images import counted_rows, held_in_memory, images_tensor, own_shape
from diffident.settings import TrainingSettings
from diffident.storage.atomic import write_text

# Modalities that each model takes; python: models take what the data is.
_TAKES = {
    "cnn-small": ("image",),
    "resnet18-32px": ("image",),
    "resnet34-32px": ("image",),
    "resnet50-32px": ("image",),
    "wrn-28-10": ("image",),
    "densenet-bc": ("image",),
    "timm:": ("image",),
    "torchvision:": ("image",),
    "ngrams": ("text",),
    "transformers:": ("text", "image"),
    "mlp": ("vector", "image"),
    "python:": ("image", "vector"),
}
_SHAPE_LENGTHS = {"image": 3, "vector": 1, "grams": 1, "tokens": 1}
# Images whose moments stand for all: the mean of so many is right to a thousandth.
_MOMENT_IMAGES = 10_000
# Texts that a tokenizer gets together: enough for all of its threads.
_TOKENIZED_AT_ONCE = 1024
# Spread of a column, relative to its mean, that is nothing but rounding.
_ROUNDING = 1e-13
_WORD = re.compile(r"(?u)\b\w+\b")


@dataclass(frozen=True)
class Preprocessor:
    """What happens to a sample before the model.

    Attributes:
        kind: `image`, `vector`, `grams` or `tokens`.
        shape: Shape of one prepared sample: (channels, height, width), (d,) or (max_length,).
        vocabulary: The 1-2-grams; gram i has index i + 1, 0 is padding.
        mean: Of each channel or column over the training data, or what a pretrained model expects; of images in [0, 1].
        std: Likewise; 1 where it is 0.
        interpolation: How images of another size are resized.
        tokenizer: A transformers tokenizer, for `tokens`.
    """

    kind: str
    shape: tuple[int, ...]
    vocabulary: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = "bilinear"
    tokenizer: Any = field(default=None, compare=False)

    @property
    def modality(self) -> str:
        """Of the data that it takes."""
        return {"grams": "text", "tokens": "text"}.get(self.kind, self.kind)

    def check(self, dataset: Dataset) -> None:
        """Raise `InputError` unless the data is of the modality in training, and not empty."""
        if not len(dataset):
            raise InputError(f"`data` must hold samples; got none at {dataset.name}. Check the path.")
        if dataset.modality != self.modality:
            raise InputError(
                f"`data` must be {self.modality}, as in training; got {dataset.modality} at {dataset.name}. "
                f"Give other data."
            )

    def transform(
        self, dataset: Dataset, progress: Callable[[int, int], None] | None = None
    ) -> Shaped[Tensor, "n ..."]:
        """The samples as one tensor: uint8 images, float32 vectors or int32 indices padded with 0 (tokens: -1).

        Args:
            dataset: The samples.
            progress: Called with (done, total).

        Raises:
            InputError: the data is of another modality or shape than in training.
        """
        self.check(dataset)
        if self.kind == "image":
            return images_tensor(dataset, self.shape, self.interpolation, progress)
        if self.kind == "vector":
            return _vectors(dataset, self.shape[0], progress)
        if self.kind == "tokens":
            return _tokens(dataset, self.tokenizer, self.shape[0], progress)
        return _grams(dataset, self.vocabulary, self.shape[0], progress)

    def save(self, folder: str | Path) -> None:
        """Write `preprocessor.json`, and `vocabulary.json` or `tokenizer/` where there is one."""
        folder = Path(folder)
        values = {key: value for key, value in asdict(self).items() if key not in ("vocabulary", "tokenizer")}
        write_text(folder / "preprocessor.json", json.dumps(values, indent=1) + "\n")
        if self.kind == "grams":
            write_text(folder / "vocabulary.json", json.dumps(self.vocabulary, ensure_ascii=False, indent=0) + "\n")
        if self.kind == "tokens":
            self.tokenizer.save_pretrained(str(folder / "tokenizer"))


def fit_preprocessor(
    dataset: Dataset, settings: TrainingSettings
) -> tuple[Preprocessor, Shaped[Tensor, "n ..."] | None]:
    """The preprocessor fitted on the training data, and the training data prepared; None where workers prepare it.

    Raises:
        InputError: the model does not take data of this modality.
    """
    model = settings.model.split(":")[0] + ":" if ":" in settings.model else settings.model
    if dataset.modality not in _TAKES[model]:
        fitting = [name for name, takes in _TAKES.items() if dataset.modality in takes]
        raise InputError(
            f"`model` must take {dataset.modality} data; got {settings.model!r} for {dataset.name}. "
            f"Take one of {', '.join(fitting)}."
        )
    prepared = _unfitted(model, dataset, settings)
    inputs = prepared.transform(dataset) if fits_in_memory(prepared, len(dataset), settings) else None
    if prepared.kind in ("image", "vector") and not prepared.mean:
        mean, std = _moments(_moment_samples(prepared, dataset, inputs))
        prepared = replace(prepared, mean=mean, std=std)
    return prepared, inputs


def fits_in_memory(preprocessor: Preprocessor, count: int, settings: TrainingSettings) -> bool:
    """Whether the samples are prepared beforehand; only images may be too many."""
    return preprocessor.kind != "image" or held_in_memory(count, preprocessor.shape, settings.loading)


def _unfitted(model: str, dataset: Dataset, settings: TrainingSettings) -> Preprocessor:
    """The preprocessor for a model or its prefix, as yet without the moments of the data."""
    if model == "ngrams":
        return Preprocessor("grams", (settings.max_length,), _fit_vocabulary(dataset, settings.min_count))
    if model == "transformers:" and dataset.modality == "text":
        tokenizer = transformers_tokenizer(settings.model.partition(":")[2])
        return Preprocessor("tokens", (settings.max_length,), tokenizer=tokenizer)
    return _image_preprocessor(dataset, settings) if dataset.modality == "image" else _vector_preprocessor(dataset)


def _moment_samples(
    prepared: Preprocessor, dataset: Dataset, inputs: Shaped[Tensor, "n ..."] | None
) -> Shaped[Tensor, "n ..."]:
    """What the moments are taken of: all vectors, or at most `_MOMENT_IMAGES` images evenly spaced over the data."""
    if prepared.kind != "image" or len(dataset) <= _MOMENT_IMAGES:
        return prepared.transform(dataset) if inputs is None else inputs
    rows = np.arange(_MOMENT_IMAGES) * len(dataset) // _MOMENT_IMAGES
    return prepared.transform(dataset.select(rows)) if inputs is None else inputs[torch.from_numpy(rows)]


def _vector_preprocessor(dataset: Dataset) -> Preprocessor:
    return Preprocessor("vector", tuple(int(side) for side in np.asarray(dataset[0]).shape))


def _image_preprocessor(dataset: Dataset, settings: TrainingSettings) -> Preprocessor:
    """Models of other libraries get the size they were made for, pretrained ones also their own moments."""
    if not settings.model.startswith(("timm:", "torchvision:", "transformers:")):
        return Preprocessor("image", own_shape(dataset, settings.image_size))
    native = image_input(settings.model)
    height, width = (settings.image_size, settings.image_size) if settings.image_size else native.size
    prepared = Preprocessor("image", (native.channels, height, width), interpolation=native.interpolation)
    return replace(prepared, mean=native.mean, std=native.std) if settings.pretrained else prepared


def load_preprocessor(folder: str | Path) -> Preprocessor:
    """The preprocessor that `save` wrote.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = Path(folder)
    file = folder / "preprocessor.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind, interpolation, vocabulary = values["kind"], str(values["interpolation"]), ()
        shape = tuple(map(int, values["shape"]))
        mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
        if kind == "grams":
            file = folder / "vocabulary.json"
            vocabulary = tuple(map(str, json.loads(file.read_text(encoding="utf-8"))))
    except FileNotFoundError as error:
        raise InputError(f"`run` must hold its preprocessor; {error.filename} is missing. Train it again.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"`run` must hold its preprocessor; {file} is damaged: {error}. Train it again.") from None
    whole = len(shape) == _SHAPE_LENGTHS.get(kind) and min(shape) > 0 and len(mean) == len(std) in (0, shape[0])
    if not (whole and interpolation.upper() in Image.Resampling.__members__):
        raise InputError(
            f"`run` must hold its preprocessor; {folder / 'preprocessor.json'} is damaged: kind {kind!r}, shape "
            f"{list(shape)}, mean of {len(mean)}, std of {len(std)}, interpolation {interpolation!r}. Train it again."
        )
    tokenizer = transformers_tokenizer(str(folder / "tokenizer")) if kind == "tokens" else None
    return Preprocessor(kind, shape, vocabulary, mean, std, interpolation=interpolation, tokenizer=tokenizer)


def _vectors(dataset: Dataset, width: int, progress: Callable[[int, int], None] | None) -> Float[Tensor, "n d"]:
    values = np.empty((len(dataset), width), dtype=np.float32)
    for row in counted_rows(dataset, progress):
        vector = np.asarray(dataset[row])
        if vector.shape != (width,):
            raise InputError(
                f"`data` must have vectors of shape ({width},), as in training; got {vector.shape} at "
                f"{dataset.ids[row]!r}. Give data with the same columns."
            )
        values[row] = vector
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise InputError(f"`data` must be finite; got NaN or infinity at {dataset.ids[row]!r}. Fill or drop it.")
    return torch.from_numpy(values)


def _moments(inputs: Shaped[Tensor, "n ..."]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    columns = inputs.transpose(0, 1).flatten(1) if inputs.ndim == 4 else inputs.T
    means, stds = [], []
    for column in columns:
        values = column.double() / 255 if inputs.dtype == torch.uint8 else column.double()
        mean, std = float(values.mean()), float(values.std(correction=0))
        means.append(mean)
        stds.append(std if std > _ROUNDING * abs(mean) else 1.0)
    return tuple(means), tuple(stds)


def _grams_of(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def _fit_vocabulary(dataset: Dataset, min_count: int) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for row in range(len(dataset)):
        counts.update(set(_grams_of(dataset[row])))
    # Where every gram is rare, all are kept.
    kept = sorted(gram for gram, count in counts.items() if count >= min_count) or sorted(counts)
    if not kept:
        raise InputError(
            f"`data` must hold words; got none in {len(dataset)} texts of {dataset.name}. Check its column."
        )
    return tuple(kept)


def _grams(
    dataset: Dataset, vocabulary: tuple[str, ...], max_length: int, progress: Callable[[int, int], None] | None
) -> Shaped[Tensor, "n length"]:
    index = {gram: number for number, gram in enumerate(vocabulary, start=1)}
    found = (
        [index[gram] for gram in _grams_of(dataset[row]) if gram in index] for row in counted_rows(dataset, progress)
    )
    return _padded([numbers[:max_length] for numbers in found], 0)


def _padded(rows: list[list[int]], padding: int) -> Shaped[Tensor, "n length"]:
    table = np.full((len(rows), max([1, *map(len, rows)])), padding, dtype=np.int32)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)


def _tokens(
    dataset: Dataset, tokenizer: Any, max_length: int, progress: Callable[[int, int], None] | None
) -> Shaped[Tensor, "n length"]:
    length = min(max_length, tokenizer.model_max_length)
    rows: list[list[int]] = []
    while len(rows) < len(dataset):
        texts = [dataset[row] for row in range(len(rows), min(len(rows) + _TOKENIZED_AT_ONCE, len(dataset)))]
        rows += tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        if progress is not None:
            progress(len(rows), len(dataset))
    return _padded(rows, -1)
