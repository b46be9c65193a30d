import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def test_plain_pytorch(example):
    assert example("pytorch_loop").main() > 0.9


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_lightning(example, tmp_path):
    assert example("lightning_module").main(tmp_path) > 0.9
    assert len(list((tmp_path / "dynamics.parquet").iterdir())) == 10


def test_hugging_face(example, tmp_path):
    assert example("hugging_face_trainer").main(tmp_path)["eval_accuracy"] > 0.75


def test_scikit_learn(example, capsys):
    assert example("scikit_learn").main() > 0.95
    assert "the ten hardest" in capsys.readouterr().out


def test_every_example_is_tested():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"pytorch_loop", "lightning_module", "hugging_face_trainer", "scikit_learn"}
