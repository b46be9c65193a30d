import numpy as np
import pytest
import torch
from PIL import Image

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.models import build_model, fit_preprocessor, load_preprocessor
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
