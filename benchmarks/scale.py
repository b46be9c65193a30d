"""Plan a very large data set from rates measured here: bytes, FLOPs, network, time and cost of each stage.

    python benchmarks/scale.py [--samples 1e9] [--features 768] [--classes 1000] [--machines 32] [--gpus 64] [--help]

Measured on this machine, one thread each: reading float16 shards (evicted from the page cache first, so that the disk
is read, where the system allows it), statistics of a shard, scores of a shard, merging and solving statistics. Given,
not measured: what the encoder does on a GPU, what the storage delivers to all machines together, the size of a sample,
and prices; set them to your own. The page docs/scale.md holds what this prints.
"""

import argparse
import json
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from diffident.difficulties.rmd import statistics_of
from diffident.gaussian import nearest_classes, solve_gaussians
from diffident.storage.feature_shards import read_shard, write_shard

SHARD_ROWS, RECORD_BYTES, ID_BYTES, SCORE_BYTES = 4096, 400, 16, 24
_ARITY, _PARTS_PER_CORE = 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=float, default=1e9)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--machines", type=int, default=32)
    parser.add_argument("--cores", type=int, default=32, help="of each machine")
    parser.add_argument("--gpus", type=int, default=64, help="of the whole cluster")
    parser.add_argument("--storage-rate", type=float, default=10e9, help="bytes a second, of all machines together")
    parser.add_argument("--sample-bytes", type=float, default=110e3, help="of a compressed image")
    parser.add_argument("--encoder-flops", type=float, default=35e9, help="of a sample (ViT-B/16 at 224: 35e9)")
    parser.add_argument("--encoder-rate", type=float, default=1500, help="samples a second and GPU, decoding included")
    parser.add_argument("--gpu-price", type=float, default=2.5, help="of a GPU hour with its share of cores")
    parser.add_argument("--core-price", type=float, default=0.04, help="of a core hour")
    parser.add_argument("--byte-price", type=float, default=0.023e-9, help="of a byte kept for a month")
    parser.add_argument("--shards", type=int, default=24, help="shards to measure with")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure(arguments)
    rows = plan(arguments, rates)
    print(rates_text(rates))
    print()
    print(markdown(rows))
    features = 2 * arguments.samples * arguments.features
    print(f"\nFeatures: {amount(features, 'B')}, {features * arguments.byte_price:,.0f} a month to keep.")
    if arguments.out:
        arguments.out.write_text(json.dumps({"rates": rates, "plan": rows}, indent=2) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Samples a second and core, seconds of merging and solving, and bytes of what travels."""
    generator = torch.Generator().manual_seed(0)
    width, classes = arguments.features, arguments.classes
    means = torch.randn(classes, width, generator=generator)
    labels = torch.randint(classes, (SHARD_ROWS,), generator=generator)
    block = (means[labels] + torch.randn(SHARD_ROWS, width, generator=generator)).half()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        entries = [write_shard(folder, number, block) for number in range(arguments.shards)]
        read = [
            timed(lambda entry=entry: read_shard(folder, entry, check=False), before=evict(folder, entry))
            for entry in entries
        ]
    values, targets = block.float(), labels.numpy()
    fitted = statistics_of(lambda: [values], targets, classes)
    gaussians = solve_gaussians(fitted, 0.1)
    runs: dict[str, Callable] = {
        "statistics": lambda: statistics_of(lambda: [values] * 4, np.tile(targets, 4), classes),
        "gram": lambda: values.numpy().T @ values.numpy(),
        "scores": lambda: nearest_classes(gaussians, values, labels),
        "merge": lambda: fitted.merge(fitted),
        "solve": lambda: solve_gaussians(fitted, "auto"),
    }
    seconds = {name: statistics.median(timed(run) for _ in range(arguments.repeats)) for name, run in runs.items()}
    return {
        "read_bytes_per_second": 2 * block.numel() / statistics.median(read),
        "statistics_per_second": 4 * SHARD_ROWS / seconds["statistics"],
        "gram_per_second": SHARD_ROWS / seconds["gram"],
        "scores_per_second": SHARD_ROWS / seconds["scores"],
        "merge_seconds": seconds["merge"],
        "solve_seconds": seconds["solve"],
        "statistics_bytes": len(pickle.dumps(fitted)),
        "gaussians_bytes": len(pickle.dumps(gaussians)),
        "directions": len(gaussians.ratios),
    }


def evict(folder: Path, entry: dict) -> Callable[[], None]:
    """Drops a file from the page cache."""

    def drop() -> None:
        if hasattr(os, "posix_fadvise"):
            with open(folder / entry["file"], "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return drop


def timed(run: Callable, before: Callable[[], None] = lambda: None) -> float:
    before()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def plan(arguments: argparse.Namespace, rates: dict[str, float]) -> list[dict]:
    """One row a stage: bytes read and written, FLOPs, bytes through the network, hours, cost."""
    n, d, k = arguments.samples, arguments.features, arguments.classes
    cores = arguments.machines * arguments.cores
    features, shards = 2 * n * d, n / SHARD_ROWS
    parts = min(shards, _PARTS_PER_CORE * cores)
    # Every level of the tree moves its statistics once; the levels are a geometric series.
    tree = parts * rates["statistics_bytes"] * _ARITY / (_ARITY - 1)
    depth = max(1, int(np.ceil(np.log(parts) / np.log(_ARITY))))
    tail = depth * _ARITY * rates["merge_seconds"] + rates["solve_seconds"]
    index = n * (ID_BYTES + 3 * 8)
    stages = [
        {
            "stage": "extract",
            "read": n * arguments.sample_bytes,
            "written": features + shards * RECORD_BYTES + index,
            "flops": n * arguments.encoder_flops,
            "network": shards * RECORD_BYTES,
            "unit": "GPU",
            "work": n / arguments.encoder_rate,
        },
        {
            "stage": "statistics",
            "read": features,
            "written": 0.0,
            "flops": 2 * n * d * d,
            "network": tree + 8 * n,
            "unit": "core",
            "work": n / rates["statistics_per_second"] + features / rates["read_bytes_per_second"],
            "tail": tail,
        },
        {
            "stage": "scores",
            "read": features,
            "written": n * (ID_BYTES + SCORE_BYTES + 2 * 8),
            "flops": 2 * n * rates["directions"] * (d + k),
            "network": arguments.machines * rates["gaussians_bytes"] + (8 + SCORE_BYTES) * n,
            "unit": "core",
            "work": n / rates["scores_per_second"] + features / rates["read_bytes_per_second"],
        },
    ]
    return [timetable(stage, arguments, cores) for stage in stages]


def timetable(stage: dict, arguments: argparse.Namespace, cores: int) -> dict:
    """The stage with its wall time and cost; whoever waits for the storage is paid for as well."""
    units, price = (arguments.gpus, arguments.gpu_price) if stage["unit"] == "GPU" else (cores, arguments.core_price)
    computing = stage["work"] / units
    storage = (stage["read"] + stage["written"]) / arguments.storage_rate
    wall = max(computing, storage) + stage.get("tail", 0.0)
    bound = "storage" if storage > computing else stage["unit"]
    return stage | {"wall": wall, "bound": bound, "cost": wall * units / 3600 * price}


def rates_text(rates: dict[str, float]) -> str:
    return "\n".join(
        [
            "| measured, one thread | rate |",
            "| --- | --- |",
            f"| read a float16 shard, as float32 | {rates['read_bytes_per_second'] / 1e6:,.0f} MB/s |",
            f"| statistics | {rates['statistics_per_second']:,.0f} samples/s |",
            f"| Gram product alone | {rates['gram_per_second']:,.0f} samples/s |",
            f"| scores with nearest label and margin | {rates['scores_per_second']:,.0f} samples/s |",
            f"| merge two statistics of {amount(rates['statistics_bytes'], 'B')} | {rates['merge_seconds']:.3f} s |",
            f"| solve, once | {rates['solve_seconds']:.2f} s |",
        ]
    )


def markdown(stages: list[dict]) -> str:
    header = ["stage", "read", "written", "FLOPs", "network", "work", "wall time", "bound by", "cost"]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " --- |" * (len(header) - 1)]
    for stage in stages:
        sizes = [amount(stage[name], "B") for name in ("read", "written", "network")]
        work = f"{stage['work'] / 3600:,.0f} {stage['unit']} hours"
        cells = [stage["stage"], *sizes[:2], amount(stage["flops"], ""), sizes[2], work, duration(stage["wall"])]
        lines.append("| " + " | ".join([*cells, stage["bound"], f"{stage['cost']:,.0f}"]) + " |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def amount(value: float, unit: str) -> str:
    """With a decimal prefix; FLOPs above a quintillion as a power."""
    if not value:
        return ""
    if not unit:
        return f"{value:.1e}"
    power = min(5, int(np.log10(value)) // 3)
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"


if __name__ == "__main__":
    main()
