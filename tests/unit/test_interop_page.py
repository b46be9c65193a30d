import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diffident.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the page's snippets have run, and their names."""
    folder, names = tmp_path_factory.mktemp("page"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            exec(block, names)
    return folder, names


def test_the_snippets_run(place):
    folder, names = place
    assert len(BLOCKS) == 6
    assert len(names["hardest"]) == 10
    assert sorted(names["nearer_elsewhere"]["id"].to_list()) == sorted(names["worst"]["id"])
    assert names["by_class"]["margin"].sum() == len(names["worst"]) > 0
    assert names["features"].num_rows == len(names["table"]) == 1000
    assert names["epochs"].height == 3
    assert len(list((folder / "audit/fiftyone/data").iterdir())) == 1000


@pytest.mark.parametrize(
    ("command", "makes", "rows"),
    [
        ("score features --method posterior --out difficulty.parquet", "difficulty.parquet", 1000),
        ("audit features --out audit --export cleanlab", "audit/cleanlab.parquet", 1000),
        ("score run --method training-dynamics --out difficulty.parquet", "difficulty.parquet", 200),
    ],
)
def test_the_commands_run(command, makes, rows, place, monkeypatch):
    assert f"`diffident {command}`" in PAGE.replace("\n", " ")
    monkeypatch.chdir(place[0])
    assert main(command.split()) == 0
    assert pq.read_table(place[0] / makes).num_rows == rows
