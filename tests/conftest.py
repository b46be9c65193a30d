"""Fixtures of several folders of tests."""

import sys

import numpy as np
import pytest
from PIL import Image

SLOW = """
import os, time, numpy as np
def encode(batch):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return np.stack([np.asarray(sample, dtype=np.float32).reshape(-1) for sample in batch])
"""


@pytest.fixture
def slow_encoder(tmp_path, monkeypatch):
    """Name of an encoder that waits for SLOW seconds a batch, found from this test's folder, in which the test runs."""
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "slow", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return "python:slow:encode"


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes of 40 pictures, one of them under the wrong name."""
    generator = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(40):
            pixels = np.clip(generator.normal(level, 8, (4, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:02d}.png")
    (tmp_path / "photos/dark/00.png").replace(tmp_path / "photos/light/wrong.png")
    return tmp_path / "photos"
