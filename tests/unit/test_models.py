import numpy as np
import pytest
import torch
from PIL import Image

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.models import build_model, fit_preprocessor, load_preprocessor
from diffident.models.images import images_tensor, memory_bytes
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


@pytest.mark.parametrize(("memory", "lines"), [(255, 1), (256, 0)])
def test_images_that_take_half_of_the_memory_are_announced(memory, lines, monkeypatch, caplog):
    monkeypatch.setattr("diffident.models.images.memory_bytes", lambda: memory)
    images_tensor(dataset("image", [Image.new("L", (8, 8))] * 2), (1, 8, 8), "bilinear")
    assert len(caplog.messages) == lines


def test_memory_is_told():
    memory = memory_bytes()
    assert memory is None or memory > 2**20
