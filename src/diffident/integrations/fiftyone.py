"""An audit of images as a folder that FiftyOne imports as a `FiftyOneDataset`.

`metadata.json` and `samples.json` in the JSON that FiftyOne wrote before its version 0.8 and still reads: it takes a
`metadata.json` without a `version` for that. Unlike the later one, which is a dump of the database with the version
and schema of the FiftyOne that wrote it, it needs nothing that only FiftyOne knows.
"""

import json
from pathlib import Path
from typing import Any

from diffident.auditing import name_of
from diffident.data.dataset import Dataset, SelectedRead
from diffident.data.samples import ReadImageFile
from diffident.errors import InputError
from diffident.records import DifficultyTable, Suspects, positions_of
from diffident.storage.atomic import write_text


def require_images(dataset: Dataset | None) -> Dataset:
    """The data set; raises `InputError` unless it has images to look at."""
    if dataset is None or dataset.modality != "image":
        got = "no data set" if dataset is None else f"{dataset.modality} data at {dataset.name}"
        raise InputError(
            f"`fiftyone` must have images to show; got {got}. Give an image data set (with FEATURES: --data DATA)."
        )
    return dataset


def to_fiftyone(suspects: Suspects, dataset: Dataset, folder: str | Path) -> Path:
    """Write every sample of the audit with its image, in the data set's order.

    Fields: `ground_truth` and `nearest` (classifications), `difficulty`, `rank`, `margin`, `suspect`, where the audit
    has it `probability_wrong`, and `source_id` (the sample's id here; FiftyOne gives its own `id`). Suspects also have
    the tag `suspect`. Images that are files of their own stay where they are and are named by their absolute paths;
    others are written to `data/` as PNG.

    Args:
        suspects: From `audit`.
        dataset: Of images, joined by id; may hold more samples.
        folder: What to write; files of an earlier call are replaced.

    Returns:
        The folder, for `fiftyone.Dataset.from_dir(dataset_dir=..., dataset_type=fiftyone.types.FiftyOneDataset)`.

    Raises:
        InputError: the data set is not of images.
        IdMismatchError: a sample of the audit is not in the data set.
    """
    require_images(dataset)
    folder, table = Path(folder), suspects.table
    positions = positions_of(dataset.ids, table.ids, what="the audit", where=f"the data set {dataset.name}")
    samples = [
        {"filepath": _filepath(dataset, int(position), folder), **_fields(suspects, row)}
        for row, position in enumerate(positions)
    ]
    classes = [name_of(label, table.label_names) for label in range(dataset.num_classes)]
    info = {"classes": classes, **{key: table.metadata[key] for key in ("method", "encoder") if key in table.metadata}}
    write_text(folder / "samples.json", _json({"samples": samples}))
    write_text(folder / "metadata.json", _json({"name": dataset.name, "media_type": "image", "info": info}))
    return folder


def _fields(suspects: Suspects, row: int) -> dict[str, Any]:
    table, suspect = suspects.table, bool(suspects.suspect[row])
    fields = {
        "tags": ["suspect"] if suspect else [],
        "source_id": str(table.ids[row]),
        "ground_truth": _classification(int(table.labels[row]), table),
        "nearest": _classification(int(table.nearest_labels[row]), table),
        "difficulty": float(table.difficulty[row]),
        "rank": float(table.rank[row]),
        "margin": float(table.margin[row]),
        "suspect": suspect,
    }
    if suspects.probability_wrong is not None:
        fields["probability_wrong"] = float(suspects.probability_wrong[row])
    return fields


def _classification(label: int, table: DifficultyTable) -> dict[str, str]:
    return {"_cls": "Classification", "label": name_of(label, table.label_names)}


def _filepath(dataset: Dataset, position: int, folder: Path) -> str:
    """The image's own file, or one that is written below `folder`, relative to it."""
    read, at = dataset.read, position
    while isinstance(read, SelectedRead):
        read, at = read.read, int(read.positions[at])
    if isinstance(read, ReadImageFile):
        return str((read.folder / str(read.paths[at])).resolve())
    name = f"data/{position:08d}.png"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    dataset[position].save(folder / name)  # samples.json is written last: nothing reads a half-written image
    return name


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
