import json

import numpy as np
import pytest

from diffident.cli import main
from diffident.cli.quickstart import _flip


def test_a_fifth_of_the_labels_is_made_wrong():
    labels = np.arange(200) % 10
    wrong = _flip(labels, 10) != labels
    assert wrong.sum() == 40
    assert ((_flip(labels, 10) >= 0) & (_flip(labels, 10) < 10)).all()


def test_quickstart_compares_with_both_baselines_and_ends_with_its_page(tmp_path, capsys):
    assert main(["quickstart", "--out", str(tmp_path / "q"), "--seeds", "1"]) == 0
    captured = capsys.readouterr()
    assert "difficulty-aware against cross-entropy: 1 common seed" in captured.out
    assert "difficulty-aware against entropy: 1 common seed" in captured.out
    assert captured.err.splitlines()[-1].endswith("report.html: open it in a browser.")
    assert (tmp_path / "q" / "report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_quickstart_measures_what_its_docstring_says(tmp_path, capsys):
    assert main(["quickstart", "--out", str(tmp_path / "q"), "--seeds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["num_flipped"], result["baseline"]) == (40, "cross-entropy")
    assert result["num_flipped_found"] >= 36
    assert [row["num_seeds"] for row in result["rows"]] == [2, 2, 2]
    assert 0.6 < result["rows"][0]["metrics"]["accuracy"]["mean"] < 0.9  # it has fitted the wrong labels
    for name in ("suspects.png", "hardest.png", "reliability.png", "difficulty.parquet"):
        assert (tmp_path / "q" / name).stat().st_size > 1000
