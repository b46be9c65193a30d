import numpy as np
import pytest

from diffident import extract, open_dataset, open_encoder
from diffident.errors import InputError, MissingColumnError


@pytest.fixture
def folder(tmp_path):
    extract(open_dataset("digits:test", limit=30), open_encoder("glyphs"), out=tmp_path / "features")
    return tmp_path / "features"


def test_features_are_vectors_in_the_order_of_the_data(folder):
    samples, features = open_dataset("digits:test", limit=30), extract_again()
    dataset = open_dataset(folder)
    assert dataset.modality == "vector"
    assert list(dataset.ids) == list(samples.ids)
    np.testing.assert_array_equal(dataset.labels, samples.labels)
    np.testing.assert_array_equal(np.stack([dataset[row] for row in range(30)]), features.values.numpy())
    assert dataset.fingerprint != open_dataset(folder, limit=5).fingerprint
    with pytest.raises(MissingColumnError, match=r"`--text-column` must be used with a table"):
        open_dataset(folder, text_column="id")


def extract_again():
    return extract(open_dataset("digits:test", limit=30), open_encoder("glyphs"))


def test_features_that_are_not_finished_are_refused(folder):
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(InputError, match="finish"):
        open_dataset(folder)
