from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.progress import Recorded, rises_to
from tests.unit.test_encoders_text import tokenizer

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.models import Preprocessor, build_model, fit_preprocessor, load_preprocessor
from diffident.models.images import held_in_memory, images_tensor, memory_bytes
from diffident.settings import load_settings


def dataset(modality, samples):
    ids = np.array([str(row) for row in range(len(samples))], dtype=object)
    return Dataset("toy", modality, ids, np.arange(len(samples)) % 2, samples.__getitem__, "f")


IMAGES = dataset("image", [Image.new("L", (8, 8), value) for value in (0, 255)])
TEXTS = dataset("text", ["Pay the bill", "pay the rent"])


@pytest.mark.parametrize(
    ("model", "data"), [("cnn-small", IMAGES), ("resnet18-32px", IMAGES), ("mlp", IMAGES), ("ngrams", TEXTS)]
)
def test_logits_have_one_column_a_class_after_a_round_trip(model, data, tmp_path):
    settings = load_settings(model=model, width=8)
    fitted, inputs = fit_preprocessor(data, settings)
    fitted.save(tmp_path)
    loaded = load_preprocessor(tmp_path)
    assert loaded == fitted
    assert torch.equal(loaded.transform(data), inputs)
    assert build_model(settings, loaded, 3).eval()(inputs).shape == (2, 3)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("resnet18-32px", 11_173_962),
        ("resnet34-32px", 21_282_122),
        ("resnet50-32px", 23_520_842),
        ("wrn-28-10", 36_479_194),
        ("densenet-bc", 769_162),
    ],
)
def test_networks_for_32_pixels_have_the_published_sizes(model, parameters):
    with torch.device("meta"):
        network = build_model(
            load_settings(model=model), Preprocessor("image", (3, 32, 32), (), (0.5,) * 3, (0.5,) * 3), 10
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("model", ["resnet34-32px", "resnet50-32px", "wrn-28-10", "densenet-bc"])
def test_networks_for_32_pixels_learn(model):
    settings = load_settings(model=model, width=4)
    fitted, _ = fit_preprocessor(IMAGES, settings)
    torch.manual_seed(0)
    network = build_model(settings, replace(fitted, shape=(1, 16, 16)), 2)
    inputs = torch.tensor([0, 255] * 4, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 16, 16)
    labels = torch.arange(8) % 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(network(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.25


def test_vocabulary_and_indices():
    fitted, inputs = fit_preprocessor(TEXTS, load_settings(model="ngrams"))
    assert fitted.vocabulary == ("pay", "pay the", "the")
    assert inputs.tolist() == [[1, 3, 2], [1, 3, 2]]


def test_standardise_images():
    fitted, inputs = fit_preprocessor(IMAGES, load_settings(model="cnn-small"))
    assert (fitted.mean, fitted.std) == ((0.5,), (0.5,))
    assert inputs.dtype == torch.uint8


def test_modality_mismatch():
    with pytest.raises(InputError, match="`model` must take text data; got 'cnn-small'"):
        fit_preprocessor(TEXTS, load_settings(model="cnn-small"))


def test_images_of_another_shape_are_cropped_at_the_centre():
    wide = Image.new("L", (24, 8), 0)
    wide.paste(255, (8, 0, 16, 8))
    pixels = images_tensor(dataset("image", [wide]), (1, 4, 4), "bilinear")
    assert (pixels > 200).all()  # the middle third, not the whole squeezed


@pytest.mark.parametrize(
    ("memory", "loading", "held", "lines"),
    [
        (255, "memory", True, 1),
        (256, "memory", True, 0),
        (255, "auto", False, 0),
        (256, "auto", True, 0),
        (256, "workers", False, 0),
        (None, "auto", True, 0),
    ],
)
def test_images_are_held_where_they_take_half_of_the_memory(memory, loading, held, lines, monkeypatch, caplog):
    monkeypatch.setattr("diffident.models.images.memory_bytes", lambda: memory)
    assert held_in_memory(2, (1, 8, 8), loading) == held
    assert len(caplog.messages) == lines


def test_memory_is_told():
    memory = memory_bytes()
    assert memory is None or memory > 2**20


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("cnn-small", dataset("image", [IMAGES[0]] * 150)),
        ("mlp", dataset("vector", [np.zeros(3, dtype=np.float32)] * 150)),
        ("ngrams", dataset("text", ["pay the rent"] * 150)),
    ],
)
def test_progress_counts_the_samples_that_are_prepared(model, data):
    fitted, inputs = fit_preprocessor(data, load_settings(model=model))
    seen = Recorded()
    assert torch.equal(fitted.transform(data, seen), inputs)
    assert rises_to(seen.calls, 150)
    assert len(seen.calls) == 3


def test_texts_that_are_tokenized_in_parts_have_the_same_tokens():
    texts, seen = ["the cat sat", "dog"] * 1000, Recorded()
    whole = tokenizer()(texts, truncation=True, max_length=4)["input_ids"]
    found = Preprocessor("tokens", (4,), tokenizer=tokenizer()).transform(dataset("text", texts), seen)
    assert [row[row >= 0].tolist() for row in found] == whole
    assert seen.calls == [(1024, 2000), (2000, 2000)]
