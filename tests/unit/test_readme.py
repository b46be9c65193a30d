import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from diffident.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    namespace: dict = {}
    exec(code[1], namespace)
    assert 0 < float(namespace["loss"]) < 10
    assert len(namespace["hardest"]) == 10
    assert "Estimate(value=" in capsys.readouterr().out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "quickstart"])
def test_every_command_is_shown(command):
    assert f"    diffident {command} " in README


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize(
    ("row", "recipe"),
    [
        ("MLP on image features, clean labels", "cifar10_head"),
        ("the same, 9 % of people's labels wrong", "cifar10_head_aggre"),
        ("the same, 40 % wrong", "cifar10_head_worse"),
        ("small ResNet from scratch, clean labels", "cifar10_small"),
        ("the ResNet, 9 % of people's labels wrong", "cifar10_small_aggre"),
        ("the ResNet, 40 % wrong", "cifar10_small_worse"),
        ("the ResNet, 5,000 images learnt by heart", "cifar10_small_fitted_again"),
        ("MLP on sentence features", "clinc150_head"),
        ("words from scratch", "clinc150"),
    ],
)
def test_the_gains_are_those_of_the_results(row, recipe):
    methods = json.loads((ROOT / "recipes" / "results" / f"{recipe}.json").read_text())["methods"]
    ours, baseline = (methods[name]["runs"] for name in ("difficulty-aware", "cross-entropy"))
    said = next(line for line in README.splitlines() if line.startswith(f"| {row} |")).strip("| ").split(" | ")[1:]
    columns = ("before", "accuracy"), ("before", "ece"), ("before", "nll"), ("before", "aurc"), ("after", "nll")
    for cell, (when, metric) in zip(said, columns, strict=True):
        for number, runs in zip(cell.split(" → "), (baseline, ours), strict=True):
            places = len(number.split(".")[1])
            assert float(number) == pytest.approx(fmean(run[when][metric] for run in runs), abs=0.5001 * 10**-places)
