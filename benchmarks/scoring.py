"""Speed and exactness of scoring: against one matrix product, the textbook, and what one would install instead.

    python benchmarks/scoring.py time [--features FEATURES] [--device cuda] [--repeats 3] [--out scoring.json]
    python benchmarks/scoring.py disk --folder DIR [--rows 1280000]       # 2 GB of disk
    python benchmarks/scoring.py curves --figure docs/images/scoring.png

`time`: fit + labelled score, and the same with nearest_label and margin, as ratios to one float32 product Z^T Z of
the same array, measured in turn in one process. Peers (pip install pytorch-ood): pytorch-ood's RMD, scikit-learn's
EmpiricalCovariance with one Mahalanobis distance to each class, and the textbook in float64 torch. Where the
rows scored are fewer than all, the peer's scoring time is scaled to all of them; fits are timed whole. Errors are
against the textbook, as parts of the standard deviation of its scores.

`disk`: float16 features in a feature store, scored through the library's own passes in a fresh process; beside it the
time to read the files once and to multiply once, both over the same blocks.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from diffident import score_features
from diffident.gaussian import fit_gaussians, nearest_classes, relative_squared_distance
from diffident.storage.feature_shards import write_manifest, write_shard
from diffident.storage.features import open_features, write_index

SHAPES = {"N 50,000, d 1280, K 10": (50_000, 1280, 10), "N 200,000, d 768, K 1000": (200_000, 768, 1000)}
# Rows that a peer scores at K = 1000; scikit-learn's distance takes seconds for each class.
PARTS = {"scikit-learn EmpiricalCovariance": 40}
PART = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "disk", "disk-worker", "curves"])
    parser.add_argument("--features", help="a feature store to measure the exactness on real features too")
    parser.add_argument("--device", default="cpu", help="where the features of `time` are; peers run on the CPU alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_280_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--figure", type=Path, default=Path("scoring.png"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "disk-worker":
        print(json.dumps(score_store(arguments.folder)))
        return
    if arguments.what == "disk":
        results = measure_disk(arguments.folder, arguments.rows)
    elif arguments.what == "curves":
        results = measure_curves(arguments.figure)
    else:
        results = {name: measure_times(*shape, arguments.repeats, arguments.device) for name, shape in SHAPES.items()}
        results["exactness"] = measure_exactness(arguments.features)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


def make_features(num_samples: int, num_features: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes around random means, directions with standard deviations from 1 to 0.03 (condition number 1,000)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num_samples,), generator=generator)
    scales = torch.logspace(0, -1.5, num_features)
    means = torch.randn(num_classes, num_features, generator=generator) * scales * 0.3
    values = torch.randn(num_samples, num_features, generator=generator).mul_(scales).add_(means[labels])
    return values, labels


def seconds_of(function) -> float:
    synchronize()
    started = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_times(num_samples: int, num_features: int, num_classes: int, repeats: int, device: str = "cpu") -> dict:
    values, labels = (made.to(device) for made in make_features(num_samples, num_features, num_classes))

    def ours():
        relative_squared_distance(fit_gaussians(values, labels), values, labels)

    def ours_with_nearest():
        nearest_classes(fit_gaussians(values, labels), values, labels)

    def product():
        return values.T @ values

    for function in (product, ours, ours_with_nearest):
        function()
    rounds = [[seconds_of(f) for f in (product, ours, ours_with_nearest)] for _ in range(repeats)]
    gram, labelled, nearest = (statistics.median(column) for column in zip(*rounds, strict=True))
    result = {
        "one product Z^T Z, seconds": gram,
        "fit + labelled score, ratio to the product": statistics.median(r[1] / r[0] for r in rounds),
        "with nearest_label and margin, ratio to the product": statistics.median(r[2] / r[0] for r in rounds),
        "fit + labelled score, seconds": labelled,
        "with nearest_label and margin, seconds": nearest,
    }
    for name, (fit, score) in peers(values, labels, num_classes).items() if device == "cpu" else ():
        part = num_samples if num_classes <= 10 and name not in PARTS else PARTS.get(name, PART)
        fitted = seconds_of(fit)
        scored = seconds_of(lambda score=score, part=part: score(part)) * num_samples / part
        result[f"{name}, seconds (scored {part:,} rows)"] = fitted + scored
        result[f"{name}, ratio to ours with nearest_label and margin"] = (fitted + scored) / nearest
    return result


def peers(values: torch.Tensor, labels: torch.Tensor, num_classes: int) -> dict:
    """Name to (fit everything, score so many rows); each keeps its state in between."""
    state: dict = {}

    def fit_textbook():
        state["textbook"] = textbook_fit(values, labels, num_classes)

    def fit_sklearn():
        from sklearn.covariance import EmpiricalCovariance

        array, targets = values.numpy(), labels.numpy()
        means = np.stack([array[targets == k].mean(axis=0) for k in range(num_classes)])
        within = EmpiricalCovariance(assume_centered=True).fit(array - means[targets])
        state["sklearn"] = means, within, EmpiricalCovariance().fit(array)

    def score_sklearn(part: int):
        means, within, background = state["sklearn"]
        array = values[:part].numpy()
        distances = np.stack([within.mahalanobis(array - mean) for mean in means], axis=1)
        return distances - background.mahalanobis(array)[:, None]

    found = {
        "textbook in float64": (
            fit_textbook,
            lambda part: textbook_score(state["textbook"], values[:part], labels[:part]),
        ),
        "scikit-learn EmpiricalCovariance": (fit_sklearn, score_sklearn),
    }
    try:
        from pytorch_ood.detector import RMD
    except ImportError:
        print("pytorch-ood is not installed: left out. pip install pytorch-ood", file=sys.stderr)
        return found

    detector = RMD(None)
    found["pytorch-ood RMD, all classes"] = (
        lambda: detector.fit_features(values, labels),
        lambda part: detector.predict_features(values[:part]),
    )
    return found


def textbook_fit(values: torch.Tensor, labels: torch.Tensor, num_classes: int) -> tuple:
    z = values.double()
    means = torch.stack([z[labels == k].mean(dim=0) for k in range(num_classes)])
    centred, shifted = z - means[labels], z - z.mean(dim=0)
    within, total = centred.T @ centred / len(z), shifted.T @ shifted / len(z)
    return means, z.mean(dim=0), torch.linalg.inv(within), torch.linalg.inv(total)


def textbook_score(state: tuple, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Difficulty of labelled samples by the definition, float64."""
    means, mean, within, total = state
    own, background = values.double() - means[labels], values.double() - mean
    return ((own @ within) * own).sum(dim=1) - ((background @ total) * background).sum(dim=1)


def measure_exactness(features: str | None) -> dict:
    cases = {"made": make_features(20_000, 768, 100)}
    if features:
        loaded = open_features(features).load()
        cases["real"] = (loaded.values, loaded.labels)
    result = {}
    for name, (values, labels) in cases.items():
        spread = values.double().std(dim=0)
        far = (values.double() + 1000 * spread).float()
        for title, z in (
            (name, values),
            (f"{name}, mean 1,000 times the spread", far),
            (f"{name}, float16", values.half()),
        ):
            state = fit_gaussians(z, labels, shrinkage=0.0)
            exact = textbook_score(textbook_fit(z, labels, int(labels.max()) + 1), z, labels)
            error = (relative_squared_distance(state, z, labels) - exact).abs().max() / exact.std()
            result[title] = {"worst error / sd": float(error), "condition number": state.condition_number}
    return result


def write_store(folder: Path, num_samples: int, num_features: int = 768, num_classes: int = 1000) -> None:
    """A float16 feature store of made features, written shard by shard."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -1.5, num_features)
    means = torch.randn(num_classes, num_features, generator=generator) * scales * 0.3
    folder.mkdir(parents=True)
    shards, labels = [], []
    for number, start in enumerate(range(0, num_samples, 16_384)):
        chosen = torch.randint(num_classes, (min(16_384, num_samples - start),), generator=generator)
        block = torch.randn(len(chosen), num_features, generator=generator).mul_(scales).add_(means[chosen]).half()
        shards.append(write_shard(folder, number, block))
        labels.append(chosen.numpy())
    ids = np.array([f"made:{row:07d}" for row in range(num_samples)], dtype=object)
    write_index(folder, ids, np.concatenate(labels), {}, shards)
    manifest = {"format_version": 1, "encoder": {"name": "made", "fingerprint": "made"}, "label_names": None}
    manifest |= {"dataset": {"name": "made", "fingerprint": "made"}, "num_features": num_features, "dtype": "float16"}
    write_manifest(folder, manifest | {"num_samples": num_samples, "complete": True, "shards": shards, "skipped": []})


def measure_disk(folder: Path, num_samples: int) -> dict:
    if not (folder / "manifest.json").exists():
        write_store(folder, num_samples)
    source = open_features(folder)

    def read():
        for block in source.blocks():
            block.sum()

    def multiply():
        total = torch.zeros(source.num_features, source.num_features)
        for block in source.blocks():
            z = block.float()
            total += z.T @ z

    reading, multiplying = seconds_of(read), seconds_of(multiply)
    command = [sys.executable, __file__, "disk-worker", "--folder", str(folder)]
    worker = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "rows": len(source),
        "read the files once, seconds": reading,
        "read and multiply once, seconds": multiplying,
        **worker,
        "fit + score, ratio to reading and multiplying once": worker["fit + score, seconds"] / multiplying,
    }


def score_store(folder: Path) -> dict:
    """In a process of its own, so that its peak memory is that of scoring."""
    source = open_features(folder)
    started = time.perf_counter()
    table = score_features(source.blocks, source.ids, source.labels)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"fit + score, seconds": seconds, "peak memory, bytes": peak, "difficulty sd": float(table.difficulty.std())}


def measure_curves(figure: Path) -> dict:
    """Seconds against N, d and K, one at a time around N 40,000, d 512, K 100."""
    sweeps = {
        "N": [(n, 512, 100) for n in (5_000, 10_000, 20_000, 40_000, 80_000)],
        "d": [(40_000, d, 100) for d in (64, 128, 256, 512, 1024)],
        "K": [(40_000, 512, k) for k in (2, 10, 100, 512, 1000)],
    }
    results: dict = {}
    for number, (name, shapes) in enumerate(sweeps.items()):
        results[name] = {}
        for shape in shapes:
            values, labels = make_features(*shape)
            functions = (
                lambda z=values: z.T @ z,
                lambda z=values, y=labels: relative_squared_distance(fit_gaussians(z, y), z, y),
                lambda z=values, y=labels: nearest_classes(fit_gaussians(z, y), z, y),
            )
            results[name][shape[number]] = [min(seconds_of(function) for _ in range(3)) for function in functions]
    draw_curves(results, figure)
    return results


def draw_curves(results: dict, figure: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    canvas = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(canvas)
    titles = ("one product Z^T Z", "fit + labelled score", "with nearest_label and margin")
    axes = canvas.subplots(1, 3, sharey=True)
    for axis, (name, rows) in zip(axes, results.items(), strict=True):
        x = [int(value) for value in rows]
        for title, column, style in zip(titles, zip(*rows.values(), strict=True), ("--", "-", "-"), strict=True):
            axis.plot(x, column, style, marker="o", markersize=4, label=title)
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.xaxis.set_major_locator(FixedLocator(x))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("seconds")
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    canvas.savefig(figure, dpi=120)


if __name__ == "__main__":
    main()
