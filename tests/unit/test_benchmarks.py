"""Every benchmark that needs no data of its own runs from beginning to end, on little."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffident.cli import main

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = (
    "metrics.py intervals --rows 500 --classes 3 --resamples 10",
    "interval_coverage.py --trials 1 --resamples 5",
    "loss.py --threads 1 --rounds 2",
    "scale.py --shards 1 --repeats 1 --samples 1e6",
)
SLOW = (
    "metrics.py peers --rows 1000 --classes 3 --repeats 1",
    "scoring.py disk --rows 20000 --folder store",
    "serve.py --samples 500 --repeats 1",
    "training.py --samples 64 --width 4 --batch-size 16 --repeats 2 --classes 3",
    "alpha_auto.py digits:train digits:test --difficulty d.parquet --model mlp --seeds 1 --out out --set epochs=1",
)


@pytest.mark.parametrize("command", [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)])
def test_a_benchmark_ends_with_figures(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script, *options = command.split()
    if "--difficulty" in options:
        assert main(["extract", "digits:train", "--encoder", "identity", "--out", "features"]) == 0
        assert main(["score", "features", "--out", "d.parquet"]) == 0
    done = subprocess.run([sys.executable, str(BENCHMARKS / script), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d", done.stdout)
    assert not re.search(r"\bnan\b", done.stdout, re.IGNORECASE)
