import html
import json
import re

import numpy as np
import pytest

from diffident.cli import main
from diffident.cli.quickstart import WRONG_FRACTION
from diffident.label_noise import flip_labels


def test_a_fifth_of_the_labels_is_made_wrong():
    labels = np.arange(200) % 10
    flipped = flip_labels(labels, 10, WRONG_FRACTION, np.random.default_rng(0))
    assert (flipped != labels).sum() == 40
    assert ((flipped >= 0) & (flipped < 10)).all()
    assert (labels == np.arange(200) % 10).all()


def test_quickstart_prints_the_verdict_of_its_page(tmp_path, capsys):
    assert main(["quickstart", "--out", str(tmp_path / "q"), "--seeds", "1"]) == 0
    captured = capsys.readouterr()
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="verdict"') : page.index("<table")]
    sentences = [html.unescape(text) for text in re.findall(r"<bdi>(.*?)</bdi>", section)]
    assert captured.out.startswith("one seed each")
    assert captured.out.endswith("\n" + "\n".join(sentences) + "\n")
    assert [sentence.split(",")[0] for sentence in sentences[:2]] == [
        "difficulty-aware against cross-entropy",
        "difficulty-aware against entropy",
    ]
    assert captured.err.splitlines()[-1].endswith("report.html: open it in a browser.")


@pytest.mark.slow
def test_quickstart_measures_what_its_docstring_says(tmp_path, capsys):
    assert main(["quickstart", "--out", str(tmp_path / "q"), "--seeds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["num_flipped"], result["baseline"]) == (40, "cross-entropy")
    assert result["num_flipped_found"] >= 36
    assert result["verdict"][0].startswith("difficulty-aware against cross-entropy, 600 samples, 2 seeds: ")
    assert [row["num_seeds"] for row in result["rows"]] == [2, 2, 2]
    assert 0.6 < result["rows"][0]["metrics"]["accuracy"]["mean"] < 0.9  # it has fitted the wrong labels
    for name in ("suspects.png", "hardest.png", "reliability.png", "difficulty.parquet"):
        assert (tmp_path / "q" / name).stat().st_size > 1000
