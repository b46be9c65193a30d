"""The ImageNet recipe on a folder of its shape: 4 classes, few pictures, -A with some of the classes, -O with none."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffident import evaluate
from diffident.errors import InputError
from diffident.storage.predictions import read_predictions
from experiments.materials import joined_by_name, open_outside, open_split
from run import main

RECIPE = Path(__file__).parents[2] / "recipes" / "imagenet_resnet34.toml"
CLASSES = ("n01", "n02", "n03", "n04")
COLOURS = dict(zip(CLASSES, ((220, 40, 40), (40, 220, 40), (40, 40, 220), (210, 210, 40)), strict=True))
SMALLER = [
    "training.model=cnn-small", "training.image_size=16", "training.width=4", "training.epochs=2",
    "training.batch_size=16", "training.devices=1", "training.precision=32-true", "training.device=cpu",
    "training.num_workers=0", "corruptions.kinds=['fog', 'jpeg']", "corruptions.severities=[3]", "corruptions.limit=4",
    "num_resamples=10",
]  # fmt: skip


def mean_colours(images):
    return np.stack([np.asarray(image.convert("RGB").resize((4, 4))).reshape(-1) / 255 for image in images])


def picture(path, colour, generator):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(colour) + generator.normal(0, 50, (48, 48, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, classes, count in (("train", CLASSES, 14), ("val", CLASSES, 4), ("imagenet-a", ("n02", "n04"), 3)):
        for name in classes:
            for number in range(count):
                picture(folder / split / name / f"{split}_{number}.png", COLOURS[name], generator)
    for number in range(5):
        picture(folder / "imagenet-o" / f"o_{number}.png", (120, 120, 120), generator)
    return folder


def test_the_recipe_runs_on_a_folder_of_its_shape(data, tmp_path):
    arguments = [str(RECIPE), "--data", str(data), "--out", str(tmp_path), "--seeds", "2"]
    arguments += ["--encoder", f"python:{__name__}:mean_colours", "--methods", "cross-entropy", "constant", "shuffled"]
    assert main([*arguments, "--set", *SMALLER]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    sizes = {name: one["num_samples"] for name, one in results["data"].items()}
    assert sizes == {
        "train": 53, "validation": 3, "test": 16, "ood-imagenet-o": 5, "extra-imagenet-a": 6,
    }  # fmt: skip
    for method in ("cross-entropy", "constant", "shuffled"):
        assert len(results["methods"][method]["runs"]) == 2
        for run in results["methods"][method]["runs"]:
            assert {"ood/imagenet-o", "imagenet-a/accuracy", "imagenet-a/ece", "imagenet-a/nll"} < run["before"].keys()
            assert 0 <= run["corrupted"]["mean_corruption_error"] <= 1
    further = read_predictions(tmp_path / "runs/cross-entropy/seed-0/predictions/extra-imagenet-a.parquet")
    assert further.labels is not None
    assert further.labels.tolist() == [1, 1, 1, 3, 3, 3]
    own = evaluate(further.logits[:, [1, 3]], torch.tensor([0, 0, 0, 1, 1, 1]), num_resamples=0)
    found = results["methods"]["cross-entropy"]["runs"][0]["before"]
    for metric in ("accuracy", "nll"):
        assert found[f"imagenet-a/{metric}"] == pytest.approx(own.metrics[metric].value, abs=1e-6)


def test_classes_are_joined_by_name(data):
    train, further = open_split(data, "train"), open_split(data, "imagenet-a")
    assert further.labels is not None
    assert further.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert joined_by_name(further, train, "a").labels.tolist() == [1, 1, 1, 3, 3, 3]
    numbered = joined_by_name(replace(further, label_names=None), train, "a")
    assert (numbered.labels.tolist(), numbered.label_names) == ([0, 0, 0, 1, 1, 1], train.label_names)
    with pytest.raises(InputError, match=r"`labels` of train must be classes of the training data; got 'n01'"):
        joined_by_name(train, further, "a")
    with pytest.raises(InputError, match=r"`data.extra.a` must have labels; got none at imagenet-o"):
        joined_by_name(open_outside(data, "imagenet-o"), train, "a")


def test_pictures_without_class_folders_are_a_set(data, tmp_path):
    outside = open_outside(data, "imagenet-o")
    assert list(outside.ids) == [f"o_{number}.png" for number in range(5)]
    assert outside[2].size == (48, 48)
    assert outside.labels is None
    assert open_outside(data, "imagenet-a").labels is not None
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must be a folder of class folders"):
        open_outside(tmp_path, "empty")
