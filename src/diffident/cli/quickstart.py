"""`diffident quickstart`: the whole way on scikit-learn's digits, with the encoder that comes with the package."""

import argparse
import shutil
import time
from pathlib import Path

from diffident.cli.common import log, print_json, progress_bar
from diffident.errors import InputError

EXAMPLE = "diffident quickstart --out quickstart/"
LOSSES = {"cross-entropy": [], "entropy": ["alpha=0.1"], "difficulty-aware": ["alpha=0.2"]}
NUM_TRAIN = 100
EPOCHS = 40
BATCH_SIZE = 16
_MARKER = ".diffident-quickstart"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--out", default="quickstart", metavar="DIR", help="folder for everything (default: quickstart)"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="training runs of each loss (default: 5)")


def run(arguments: argparse.Namespace) -> None:
    """Extract, score, show, train, evaluate, compare."""
    started = time.monotonic()
    if arguments.seeds < 1:
        raise InputError(f"`--seeds` must be at least 1; got {arguments.seeds}. Leave it out for 5.")
    out = _fresh_folder(Path(arguments.out))
    train_set, test_set, table = _score(out)
    files = _show_hardest(table, train_set, out)
    comparison = _train_and_compare(train_set, test_set, table, out, arguments.seeds)
    _draw(out, arguments.seeds)
    seconds = time.monotonic() - started
    if arguments.json:
        from diffident.cli.compare import comparison_to_dict

        print_json({"out": str(out), "seconds": round(seconds, 1), **comparison_to_dict(comparison)})
        return
    from diffident.cli.compare import print_comparison

    print_comparison(comparison)
    log(
        f"Trained on {len(train_set)} digits, tested on {len(test_set)}, {arguments.seeds} seeds each; {seconds:.0f} s."
    )
    log(f"Pictures in {out}: {', '.join(name for name in files if name.endswith('.png'))}, reliability.png.")


def _fresh_folder(out: Path) -> Path:
    """An empty folder; only one that an earlier quickstart made is emptied."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARKER).exists():
            raise InputError(f"`--out` must be new or from an earlier quickstart; got {out}, which holds other files.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()
    return out


def _score(out: Path):
    """The training part, the test part and the difficulty of the training part."""
    from diffident.cli.score import describe, score_source, write
    from diffident.data import open_dataset
    from diffident.encoders import open_encoder
    from diffident.extraction import extract
    from diffident.storage.features import open_features

    train_set = open_dataset("digits:train", limit=NUM_TRAIN)
    test_set = open_dataset("digits:test")
    with progress_bar("extract") as progress:
        extract(train_set, open_encoder("glyphs", device="cpu"), out=out / "features", progress=progress)
    source = open_features(out / "features")
    table = score_source(source, "digits:train", method="rmd", shrinkage="auto")
    write(table, str(out / "difficulty.parquet"))
    describe(table)
    return train_set, test_set, table


def _show_hardest(table, train_set, out: Path) -> list[str]:
    from diffident.auditing import audit
    from diffident.cli.audit import write_audit

    return write_audit(audit(table), train_set, out, top=30)


def _train_and_compare(train_set, test_set, table, out: Path, num_seeds: int):
    from diffident.cli.compare import compare_runs
    from diffident.cli.train import evaluate_run
    from diffident.settings import load_settings
    from diffident.training import train

    runs = [(loss, seed) for seed in range(num_seeds) for loss in LOSSES]
    folders = []
    with progress_bar("train") as progress:
        for number, (loss, seed) in enumerate(runs):
            progress(number, len(runs))
            folder = out / "runs" / f"{loss}-{seed}"
            explicit = {"model": "cnn-small", "loss": loss, "seed": seed, "epochs": EPOCHS, "batch_size": BATCH_SIZE}
            settings = load_settings(None, LOSSES[loss], **explicit)
            train(train_set, settings, out=folder, difficulty=table, test=test_set)
            evaluate_run(folder)
            folders.append(folder)
    return compare_runs(folders, "cross-entropy")


def _draw(out: Path, num_seeds: int) -> None:
    import torch

    from diffident.report.figures import reliability_and_risk_figure, save_figure
    from diffident.storage.predictions import read_predictions

    stacked = {}
    for loss in LOSSES:
        files = [out / "runs" / f"{loss}-{seed}" / "predictions" / "test.parquet" for seed in range(num_seeds)]
        predictions = [read_predictions(file) for file in files]
        labels = [one.labels for one in predictions if one.labels is not None]
        stacked[loss] = (torch.cat([one.logits for one in predictions]), torch.cat(labels))
    save_figure(reliability_and_risk_figure(stacked), out / "reliability.png")
