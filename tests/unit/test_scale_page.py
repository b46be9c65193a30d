import re
from pathlib import Path

import numpy as np

from diffident.data import open_dataset
from diffident.difficulties import score_features
from diffident.extraction import extract

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_parts_are_scored_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset("digits", limit=200)
    for number, rows in enumerate((np.arange(90), np.arange(90, 200))):
        extract(dataset.select(rows), "identity", out=f"part-{number}")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(block, names)
    whole = extract(dataset, "identity", out="whole")
    table = score_features(whole.blocks, whole.ids, whole.labels, shrinkage=names["gaussians"].shrinkage)
    ours = np.concatenate([scores.difficulty for scores in names["scores"]])
    np.testing.assert_allclose(ours, table.difficulty, rtol=0, atol=1e-4)
