import io
import re

import pytest
from rich.console import Console
from tests.unit.test_paired import predictions

from diffident.cli import main
from diffident.cli.common import progress_bar
from diffident.storage.predictions import write_predictions


@pytest.fixture
def terminal(monkeypatch):
    """What is drawn on standard error, as if that were a terminal."""
    shown = io.StringIO()

    def console(stderr=False, **options):
        return Console(file=shown, force_terminal=True, width=140) if stderr else Console(**options)

    monkeypatch.setattr("diffident.cli.common.Console", console)
    return shown


def drawn(terminal) -> list[str]:
    """Label and count of every bar as it was drawn last, in order."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    bars = re.findall(r"([a-z]+)(?:, pass \d+)? +[━╸╺ ]+ +(\d+/(?:\d+|\?))", plain)
    return [f"{label} {count}" for label, count in dict(bars).items()]


@pytest.mark.parametrize(
    ("command", "bars"),
    [
        (["predict", "run", "photos", "--out", "p.parquet"], ["predict 24/24"]),
        (["score", "features", "--out", "d.parquet", "--method", "self-confidence"], ["score 12/12"]),
        (["score", "features", "features", "--out", "d.parquet"], ["score 12/12"]),
        (["audit", "features", "--out", "audit2"], ["score 12/12", "audit 12/12"]),
        (["evaluate", "predictions.parquet", "--resamples", "50"], ["evaluate 100/100"]),
    ],
)
def test_a_bar_is_drawn_to_its_end(command, bars, work, terminal):
    assert main([*command, "--json"]) == 0
    assert drawn(terminal)[: len(bars)] == bars


def test_comparisons_and_reports_draw_bars(tmp_path, monkeypatch, terminal):
    monkeypatch.chdir(tmp_path)
    for name, scale in (("plain", 1.0), ("sharp", 3.0)):
        write_predictions(predictions(scale=scale), f"{name}.parquet")
    assert main(["compare", "plain.parquet", "sharp.parquet", "--resamples", "20", "--json"]) == 0
    assert drawn(terminal) == ["compare 120/120"]
    terminal.truncate(0)
    assert main(["report", "plain.parquet", "sharp.parquet", "--resamples", "20", "--out", "r.html", "--json"]) == 0
    assert drawn(terminal)[:2] == ["evaluate 40/40", "compare 40/40"]


def test_calibrators_and_detectors_draw_bars(tmp_path, monkeypatch, terminal):
    monkeypatch.chdir(tmp_path)
    for name in ("test", "calibration", "noise"):
        write_predictions(predictions(noise=1.0, ids=[f"{name}{row}" for row in range(300)]), f"{name}.parquet")
    options = [
        "--calibration",
        "calibration.parquet",
        "--ood",
        "noise=noise.parquet",
        "--detectors",
        "energy",
        "entropy",
    ]
    assert main(["evaluate", "test.parquet", *options, "--resamples", "20", "--json"]) == 0
    assert drawn(terminal) == ["evaluate 80/80", "calibrators 1/1", "detectors 2/2"]


def test_where_the_count_falls_another_pass_begins(terminal):
    with progress_bar("score") as progress:
        for done in (0, 5, 10, 0, 5):
            progress(done, 10)
    assert re.search(r"score, pass 2 .* 5/10", terminal.getvalue())


def test_nothing_is_drawn_without_a_terminal(work, capsys):
    assert main(["predict", "run", "photos", "--out", "p.parquet"]) == 0
    assert capsys.readouterr().err == "The logits of 12 samples are in p.parquet.\n"
