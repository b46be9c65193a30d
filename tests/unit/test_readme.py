import re
from pathlib import Path

import pytest

from diffident.cli import COMMANDS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


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
