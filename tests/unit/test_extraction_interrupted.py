"""Extractions that are killed, interrupted or fail, and go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.extracting import contents, encode_as, halves

import diffident
from diffident.cli import main
from diffident.data import open_dataset
from diffident.encoders.callables import CallableEncoder
from diffident.errors import InputError
from diffident.extraction import extract
from diffident.storage.features import open_features


@pytest.fixture
def dataset():
    return open_dataset("digits", limit=50)


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


def test_killed_at_any_write_it_resumes_to_the_same_bytes(dataset, tmp_path, monkeypatch):
    replace, copies = os.replace, []

    def replace_and_copy(source, target):
        # What a kill leaves: the temporary file just before the move, the new file without its successors just after.
        for moment in ("before", "after"):
            copies.append(tmp_path / f"{len(copies)}-{moment}")
            shutil.copytree(tmp_path / "whole", copies[-1])
            if moment == "before":
                replace(source, target)

    monkeypatch.setattr("diffident.storage.atomic.os.replace", replace_and_copy)
    options = {"batch_size": 8, "shard_size": 16}
    extract(dataset, halves, out=tmp_path / "whole", **options)
    monkeypatch.undo()
    # The first manifest; four shards with a manifest each; the index; the last manifest.
    assert len(copies) == 2 * (1 + 2 * 4 + 1 + 1)
    whole = contents(tmp_path / "whole")
    for copy in copies:
        finished = (
            json.loads((copy / "manifest.json").read_text())["shards"] if (copy / "manifest.json").exists() else []
        )
        encoded = []
        encoder = encode_as(lambda batch, encoded=encoded: encoded.append(len(batch)) or halves(batch))
        encoder.name, encoder.parts, encoder.fingerprint = (getattr(CallableEncoder(halves), name) for name in KEYS)
        extract(dataset, encoder, out=copy, **options)
        assert contents(copy) == whole, copy
        assert sum(encoded) == 50 - sum(shard["rows"] for shard in finished)


KEYS = ("name", "parts", "fingerprint")


def test_files_of_others_stay_when_leftovers_go(dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "f")
    names = [".shard-00007.safetensors.0123abcd.tmp", ".manifest.json.0123abcd.tmp", ".notes.txt.0123abcd.tmp", ".tmp"]
    for name in names:
        (tmp_path / "f" / name).write_text("left")
    extract(dataset, halves, out=tmp_path / "f")
    assert sorted(name for name in contents(tmp_path / "f") if name.startswith(".")) == [names[2], names[3]]


@pytest.fixture
def command(slow_encoder):
    """Arguments of an extraction, but for its folder."""
    options = ["--limit", "400", "--batch-size", "64", "--shard-size", "64", "--encoder", slow_encoder]
    return ["extract", "digits", *options, "--out"]


@pytest.fixture
def heard():
    """Python's own answer to SIGINT, even where the tests were started by a background shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_killed_by_the_system_it_resumes_to_the_same_bytes(command):
    killed = subprocess.Popen(
        [sys.executable, "-m", "diffident", *command, "parts"],
        env=os.environ | {"SLOW": "0.5", "PYTHONPATH": str(Path(diffident.__file__).parents[1])},
        stderr=subprocess.DEVNULL,
    )
    while not Path("parts/shard-00001.safetensors").exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not json.loads(Path("parts/manifest.json").read_text())["complete"]
    assert [main([*command, name]) for name in ("parts", "whole")] == [0, 0]
    assert contents(Path("parts")) == contents(Path("whole"))


def test_interrupted_by_the_user_it_resumes_to_the_same_bytes(heard, command, capsys, monkeypatch):
    def interrupt(seconds):
        if Path("parts/shard-00001.safetensors").exists():
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", interrupt)
        assert main([*command, "parts"]) == 130
    assert capsys.readouterr().err == "diffident: interrupted; finished work is kept.\n"
    assert len(json.loads(Path("parts/manifest.json").read_text())["shards"]) == 2
    assert [main([*command, name]) for name in ("parts", "whole")] == [0, 0]
    assert contents(Path("parts")) == contents(Path("whole"))
