import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest

import diffident

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = (EXAMPLES.parent / "docs" / "integrations.md").read_text(encoding="utf-8")


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


def test_the_page_names_what_is_there():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(re.findall(r"\(\.\./examples/(\w+)\.py\)", PAGE))
    blocks = [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)]
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(importlib.import_module(str(node.module)), name.name) for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "diffident":
            assert hasattr(diffident, node.attr)
    assert len(blocks) == 4
