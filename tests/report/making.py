"""What the report's tests share: small audits, and a data set that is hostile in every way that text can be."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffident.auditing import AuditSource, audit, audit_table, suspect_rows, write_audit_summary, write_audit_table
from diffident.data.dataset import Dataset
from diffident.difficulties import score_features
from diffident.records import DifficultyTable, Predictions, Suspects
from diffident.storage.difficulty_table import write_difficulty_table

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "</script><script>window.pwned = 3</script>",
    "<!-- <script> -->",
    "\u202eltr-then\u2067 isolate ;)exe.gpj",
    "'; alert(1); //\"`${window.pwned = 4}`",
    "{{ 7 * 7 }} {% raw %}",
    '=HYPERLINK("http://example.invalid","click")',
    "line\nbreak\r\n\tand \u2028 separators \u0000\u0007",
    "&lt;b&gt; &amp; $\\frac{1}{0}$ \\input{x} | a_b^c ~ %",
    "x" * 10_000,
    "",
)


def make_table(labels, nearest, difficulty, *, names=None, ids=None) -> DifficultyTable:
    labels, nearest = np.asarray(labels), np.asarray(nearest)
    difficulty = np.asarray(difficulty, dtype=np.float64)
    ids = [f"s{row:05d}" for row in range(len(labels))] if ids is None else ids
    rank = np.argsort(np.argsort(difficulty, kind="stable")) / max(1, len(labels) - 1)
    margin = np.where(labels == nearest, 0.0, 1.0 + np.arange(len(labels)) % 7)
    return DifficultyTable(
        np.array(ids, dtype=object), labels, difficulty, rank, nearest, margin, {"method": "rmd"}, names
    )


def make_blobs(count: int, num_classes: int = 3, num_features: int = 6, num_wrong: int = 5):
    """Features of separate classes, the first labels wrong; features, labels, blocks."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % num_classes
    values = torch.randn(count, num_features, generator=generator) + 8 * torch.eye(num_classes, num_features)[labels]
    labels[:num_wrong] = (labels[:num_wrong] + 1) % num_classes
    return values, labels.numpy(), lambda: values.split(64)


def make_suspects(count: int = 60, **options) -> Suspects:
    _, labels, blocks = make_blobs(count, **options)
    ids = np.array([f"s{row:05d}" for row in range(count)], dtype=object)
    return audit(score_features(blocks, ids, labels), blocks)


def make_images(ids, size=(12, 12)) -> Dataset:
    """A picture for each id, of its own colour."""

    def read(position: int) -> Image.Image:
        return Image.new("RGB", size, (position * 37 % 256, position * 91 % 256, position * 17 % 256))

    return Dataset("pictures", "image", np.asarray(ids, dtype=object), None, read, "f")


def make_texts(ids, texts) -> Dataset:
    return Dataset("texts", "text", np.asarray(ids, dtype=object), None, lambda position: texts[position], "f")


def hostile_suspects() -> tuple[Suspects, Dataset]:
    """Ids, class names and texts that are markup, scripts, marks of direction, or endless."""
    count = 4 * len(HOSTILE)
    ids = [f"{HOSTILE[row % len(HOSTILE)]}{row}" for row in range(count)]
    texts = [HOSTILE[(row * 5 + 1) % len(HOSTILE)] for row in range(count)]
    labels = np.arange(count) % len(HOSTILE)
    nearest = np.where(np.arange(count) % 3 == 0, (labels + 1) % len(HOSTILE), labels)
    table = make_table(labels, nearest, np.linspace(-1, 5, count), names=HOSTILE, ids=ids)
    return audit(table), make_texts(ids, texts)


def write_audit_folder(folder: Path, suspects: Suspects, source: AuditSource | None = None) -> Path:
    write_difficulty_table(suspects.table, folder / "difficulty.parquet")
    write_audit_table(audit_table(suspects, suspect_rows(suspects)), folder, "suspects")
    write_audit_summary(suspects, source or AuditSource(), folder)
    return folder


def make_predictions(count: int = 200, num_classes: int = 3, seed: int = 0, *, labelled: bool = True) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % num_classes
    logits = torch.randn(count, num_classes, generator=generator) + 2 * torch.eye(num_classes)[labels]
    ids = np.array([f"t{row:04d}" for row in range(count)], dtype=object)
    return Predictions(ids, logits, labels if labelled else None)
