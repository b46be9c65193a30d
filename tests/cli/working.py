"""What the tests of the commands work on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DIFFICULTY_AWARE = ["train", "photos", "--model", "mlp", "--set", "epochs=1", "--loss", "difficulty-aware"]


def save_photos(folder: Path, count: int = 6) -> Path:
    """Two classes of noisy pictures, dark cats and light dogs."""
    generator = np.random.default_rng(0)
    for name, level in (("cat", 60), ("dog", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(generator.normal(level, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_forms(work: Path) -> list[str]:
    """The same few samples in every form that is one file."""
    (work / "a.csv").write_text("text,label\ngood,x\nbad,y\n")
    (work / "a.tsv").write_text("text\tlabel\ngood\tx\nbad\ty\n")
    (work / "a.jsonl").write_text('{"text": "good", "label": 0}\n{"text": "bad", "label": 1}\n')
    pq.write_table(pa.table({"text": ["good", "bad"], "label": [0, 1]}), work / "a.parquet")
    np.savez(work / "a.npz", features=np.eye(2, dtype=np.float32), labels=[0, 1])
    np.save(work / "a.npy", np.eye(2))
    return ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.npz", "a.npy"]


def commands_on(data: str, *options: str, out: str = "") -> list[list[str]]:
    """Every command that reads DATA; without `out`, their results would replace those of earlier calls."""
    return [
        ["extract", data, "--encoder", "identity", "--out", f"{out}features", *options],
        ["audit", data, "--encoder", "identity", "--out", f"{out}audit", *options],
        ["train", data, "--model", "mlp", "--set", "epochs=1", "--out", f"{out}run", *options],
        ["predict", "run", data, "--out", f"{out}predictions.parquet", *options],
    ]
