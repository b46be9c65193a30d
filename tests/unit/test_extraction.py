import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from diffident.data import open_dataset
from diffident.errors import InputError, ResumeError
from diffident.extraction import extract
from diffident.storage.features import open_features, save_features


def halves(batch):
    return np.stack([np.asarray(sample, dtype=np.float32).reshape(-1) / 2 for sample in batch])


def thirds(batch):
    return np.stack([np.asarray(sample, dtype=np.float32).reshape(-1) / 3 for sample in batch])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def dataset():
    return open_dataset("digits", limit=50)


def test_features_are_in_the_data_sets_order(dataset, tmp_path):
    store = extract(dataset, halves, out=tmp_path / "f", batch_size=8, shard_size=16)
    assert store.ids.tolist() == dataset.ids.tolist()
    expected = halves([dataset[row] for row in range(50)])
    np.testing.assert_array_equal(store.load().values.numpy(), expected)
    np.testing.assert_array_equal(extract(dataset, halves).values.numpy(), expected)
    assert [shard["rows"] for shard in store.shards] == [16, 16, 16, 2]


def test_a_failed_extraction_goes_on_and_ends_in_the_same_bytes(dataset, tmp_path):
    calls = []

    def encode(batch):
        calls.append(len(batch))
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return halves(batch)

    whole = extract(dataset, encode_as(halves), out=tmp_path / "whole", batch_size=8, shard_size=16)
    with pytest.raises(RuntimeError):
        extract(dataset, encode_as(encode), out=tmp_path / "parts", batch_size=8, shard_size=16)
    with pytest.raises(InputError, match="must be finished"):
        open_features(tmp_path / "parts")
    extract(dataset, encode_as(encode), out=tmp_path / "parts", batch_size=8, shard_size=16)
    assert sum(calls) == 50 + 8 + 8  # the first shard, 16 samples, is not encoded again
    assert contents(tmp_path / "parts") == contents(whole.path)


def encode_as(function):
    """An encoder whose fingerprint does not depend on the function."""
    from diffident.encoders import open_encoder

    encoder = open_encoder(function)
    encoder.name = encoder.fingerprint = "test"
    return encoder


def test_killed_extraction_resumes_to_the_same_bytes(tmp_path):
    (tmp_path / "slow.py").write_text(
        textwrap.dedent("""
        import os, time, numpy as np
        def encode(batch):
            time.sleep(float(os.environ["SLOW"]))
            return np.stack([np.asarray(sample, dtype=np.float32).reshape(-1) for sample in batch])
        """)
    )
    command = [sys.executable, "-m", "diffident", "extract", "digits", "--limit", "400", "--batch-size", "64"]
    command += ["--shard-size", "64", "--encoder", "python:slow:encode", "--out"]
    options = {"cwd": tmp_path, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen([*command, "parts"], env=os.environ | {"SLOW": "0.5"}, **options)
    while not (tmp_path / "parts/shard-00001.safetensors").exists():
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not json.loads((tmp_path / "parts/manifest.json").read_text())["complete"]
    for name in ("parts", "whole"):
        subprocess.run([*command, name], env=os.environ | {"SLOW": "0"}, check=True, **options)
    hidden = [name for name in contents(tmp_path / "parts") if name.startswith(".")]
    parts = {name: data for name, data in contents(tmp_path / "parts").items() if name not in hidden}
    assert parts == contents(tmp_path / "whole")


def test_another_encoder_is_refused(dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "f")
    with pytest.raises(ResumeError, match="must hold features of the same encoder"):
        extract(dataset, thirds, out=tmp_path / "f")


def test_another_data_set_is_refused(dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "f")
    with pytest.raises(ResumeError, match="must hold features of the same dataset"):
        extract(open_dataset("digits", limit=51), halves, out=tmp_path / "f")


def test_a_changed_shard_is_noticed(dataset, tmp_path):
    store = extract(dataset, halves, out=tmp_path / "f", shard_size=64)
    shard = tmp_path / "f/shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"shard-00000\.safetensors is missing or was changed"):
        store.verify()


def test_a_folder_with_other_files_is_refused(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        extract(dataset, halves, out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda batch: np.zeros((1, 3)), r"must give \[50, d\] for 50 samples; got \[1, 3\]"),
        (lambda batch: np.full((len(batch), 3), np.nan), "NaN or infinity at sample `digits:0000`"),
    ],
)
def test_a_wrong_encoder_is_named(encoder, message, dataset):
    with pytest.raises(InputError, match=message):
        extract(dataset, encoder)


def test_text_for_an_image_encoder_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n")
    with pytest.raises(InputError, match="must take text samples, which t has; glyphs takes image"):
        extract(tmp_path / "t.csv", "glyphs")


def test_other_label_columns_come_along(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(4, dtype=np.float32), labels=[0, 1, 0, 1], noisy=[1, 1, 0, 0])
    store = extract(tmp_path / "a.npz", "identity", out=tmp_path / "f")
    assert store.columns["noisy"].tolist() == [1, 1, 0, 0]
    assert open_features(tmp_path / "f", label_column="noisy").labels.tolist() == [1, 1, 0, 0]
    with pytest.raises(InputError, match="Did you mean `noisy`"):
        open_features(tmp_path / "f", label_column="nosy")


def test_features_in_memory_are_saved_and_read(dataset, tmp_path):
    features = extract(dataset, halves)
    back = save_features(features, tmp_path / "f").load()
    assert torch.equal(back.values, features.values)
    assert back.label_names == features.label_names
