import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from diffident.data import open_dataset
from diffident.errors import InputError

SHARED = Path(os.environ.get("DIFFIDENT_SHARED", Path(__file__).parents[2] / "../shared")) / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, or DIFFIDENT_SHARED"),
]


def test_cifar10_with_human_labels():
    published = open_dataset(SHARED / "cifar10/train.parquet")
    worse = open_dataset(SHARED / "cifar10/train.parquet", label_column="cifar10n_worse_label")
    assert len(published) == 50_000
    assert published[0].size == (32, 32)
    assert published.label_names[:3] == ("airplane", "automobile", "bird")
    assert worse.label_names == published.label_names
    assert round(float((worse.labels != published.labels).mean()), 3) == 0.402
    assert np.array_equal(published.columns["cifar10n_worse_label"], worse.labels)
    assert worse.fingerprint == published.fingerprint


def test_cifar10_is_opened_without_copies_of_its_images():
    before = pa.total_allocated_bytes()
    dataset = open_dataset(SHARED / "cifar10/train.parquet", limit=10)
    assert pa.total_allocated_bytes() - before < 1.05 * (SHARED / "cifar10/train.parquet").stat().st_size
    assert dataset[9].mode == "RGB"


def test_clinc150_with_intents_by_number_and_by_name():
    numbers = open_dataset(SHARED / "clinc150/train.parquet")
    names = open_dataset(SHARED / "clinc150/train.parquet", label_column="intent")
    assert numbers[0] == names[0] == "what expression would i use to say i love you if i were an italian"
    assert (numbers.num_classes, names.num_classes) == (150, 150)
    pairs = set(zip(numbers.labels.tolist(), names.labels.tolist(), strict=True))
    assert len(pairs) == 150
    assert names.label_names == tuple(sorted(names.label_names))


def test_clinc150_folder_holds_splits():
    assert len(open_dataset(f"{SHARED / 'clinc150'}:out_of_scope_test")) == 1000
    with pytest.raises(InputError, match="it has out_of_scope_test, test, train, validation"):
        open_dataset(SHARED / "clinc150")
