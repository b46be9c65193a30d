"""Files that were damaged: one line each, never a traceback."""

import shutil

import numpy as np
import pytest
from tests.cli.working import DIFFICULTY_AWARE, commands_on, write_forms

from diffident.cli import main

# What is damaged, and the commands that read it.
DAMAGED = {
    **{form: commands_on(form, out="new/") for form in ("a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.npz", "a.npy")},
    "photos/cat/0.png": commands_on("photos", out="new/"),
    **{
        f"features/{name}": [
            ["score", "features", "--out", "d.parquet"],
            ["audit", "features", "--out", "new/audit"],
            ["extract", "photos", "--encoder", "identity", "--out", "features"],
        ]
        for name in ("manifest.json", "index.parquet", "shard-00000.safetensors")
    },
    "difficulty.parquet": [
        [*DIFFICULTY_AWARE, "--difficulty", "difficulty.parquet", "--out", "new/run"],
    ],
    "predictions.parquet": [["evaluate", "predictions.parquet"], ["evaluate", "run", "--ood", "x=predictions.parquet"]],
    **{
        f"{run}/{name}": [["predict", run, data, "--out", "new/predictions.parquet"]]
        for run, data, names in (
            ("run", "photos", ("config.toml", "preprocessor.json", "model.safetensors")),
            ("texts", "notes.csv", ("preprocessor.json", "vocabulary.json")),
        )
        for name in names
    },
    "run/predictions/test.parquet": [["evaluate", "run"]],
    "run/evaluation.json": [["compare", "run"]],
    "a.npz as results": [
        ["score", "a.npz", "--out", "d.parquet"],
        ["audit", "a.npz", "--out", "new/audit"],
        ["evaluate", "a.npz"],
    ],
}


def damage(content: bytes, generator: np.random.Generator) -> list[bytes]:
    """Random bytes, nothing, a beginning, and the content with some bytes changed."""
    changed = bytearray(content)
    for place in generator.integers(len(content), size=5):
        changed[place] = generator.integers(256)
    return [generator.bytes(200), b"", content[: generator.integers(len(content))], bytes(changed)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers made of changed bytes may be infinite
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_never_end_in_a_traceback(name, work, capsys):
    write_forms(work)
    path = work / name.partition(" ")[0]
    whole = path.read_bytes()
    generator = np.random.default_rng(sum(name.encode()))
    for _ in range(3):
        for content in damage(whole, generator):
            path.write_bytes(content)
            for command in DAMAGED[name]:
                shutil.rmtree(work / "new", ignore_errors=True)
                code = main(command)
                captured = capsys.readouterr()
                assert code in (0, 2), captured.err
                assert code == 0 or captured.err.startswith("diffident: error: `") or "sample `" in captured.err
