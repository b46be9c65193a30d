"""Images per second of `extract`, beside the bare model and beside a plain DataLoader loop.

    python benchmarks/extraction.py --data cifar10/test.parquet --encoder timm:NAME --image-size 128 [--out FILE]

Every repeat times, one after the other: the model's forward pass on batches that are ready (`forward`); `extract`
from the compressed images to features in memory; and what one would write instead, a torch DataLoader with workers,
the model's own transform and the same network (`loader`). Ratios are taken within a repeat, and their median is
reported, because other work on the machine slows all three. `cpu` is the processor time of each, all threads and
workers together, which other work disturbs less; waiting threads of OpenMP count in it.

On a CPU decoding takes cores from the model, so that `extract` cannot reach the forward rate. `attainable` is the
ratio if all cores were always busy with one or the other: t / (t + p / cores), where t is the forward time of an image
and p the time in which one thread reads and prepares it. On an accelerator, or where the model leaves cores free
(OMP_NUM_THREADS), it is 1, as long as those cores decode faster than the model computes.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader

from diffident import extract, open_dataset
from diffident.encoders.vision import from_timm


class Transformed(torch.utils.data.Dataset):
    """The transformed images of a data set, as a DataLoader wants them."""

    def __init__(self, dataset, transform):
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> torch.Tensor:
        return self.transform(self.dataset[position].convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images, in any form that diffident reads")
    parser.add_argument("--encoder", required=True, help="timm:NAME, or timm:local-dir:PATH")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.data, limit=arguments.limit)
    model = timm.create_model(arguments.encoder.removeprefix("timm:"), pretrained=True, num_classes=0)
    result = measure(dataset, model, arguments)
    print(json.dumps(result, indent=2))
    print(f"\n{'':<10}{'images/s':>10}{'extract is':>14}{'cpu ms/image':>14}")
    for name in ("forward", "loader", "extract"):
        ratio = f"{result[f'extract_by_{name}']:.2f} times" if name != "extract" else ""
        print(f"{name:<10}{result[name]:>10.0f}{ratio:>14}{result['cpu_ms_per_image'][name]:>14.2f}")
    print(f"attainable: {result['attainable']:.2f} times forward")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(dataset, model: torch.nn.Module, arguments: argparse.Namespace) -> dict:
    size, device, count = arguments.image_size, torch.device(arguments.device), len(dataset)
    encoder = from_timm(model, name=arguments.encoder, image_size=size, device=arguments.device, precision="float32")
    transform = timm_transform(model, size)
    loader = DataLoader(
        Transformed(dataset, transform),
        batch_size=arguments.batch_size,
        num_workers=min(8, cores()),
        pin_memory=device.type == "cuda",
    )
    ready = [batch.to(device, memory_format=torch.channels_last) for batch in loader]
    runs: dict[str, Callable] = {
        "forward": lambda: forward(model, ready),
        "extract": lambda: extract(dataset, encoder, batch_size=arguments.batch_size).values,
        "loader": lambda: forward(model, (batch.to(device) for batch in loader)),
        "prepare": lambda: [encoder.prepare(dataset[position]) for position in range(count)],
    }
    seconds, cpu = ({name: [] for name in runs} for _ in range(2))
    features = {name: run() for name, run in runs.items()}  # warm up
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            started, used = time.perf_counter(), cpu_seconds()
            run()
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(cpu_seconds() - used)
    rates = {name: count / statistics.median(seconds[name]) for name in ("forward", "extract", "loader")}
    ratios = {
        f"extract_by_{name}": statistics.median(
            other / ours for other, ours in zip(seconds[name], seconds["extract"], strict=True)
        )
        for name in ("forward", "loader")
    }
    # The fastest prepare is the least disturbed by others; the forward time is the median, as in the ratio.
    prepare, per_image = min(seconds["prepare"]) / count, 1 / rates["forward"]
    shared = prepare / cores() if device.type == "cpu" and torch.get_num_threads() >= cores() else 0.0
    return {
        **rates,
        **ratios,
        "attainable": per_image / (per_image + shared),
        "prepare_ms_per_image": 1e3 * prepare,
        "cpu_ms_per_image": {name: 1e3 * statistics.median(used) / count for name, used in cpu.items()},
        "largest_difference": float((features["extract"] - features["loader"]).abs().max()),
        "num_images": count,
        "repeats": arguments.repeats,
        "cores": cores(),
        "model_threads": torch.get_num_threads(),
        "device": str(device),
        "torch": torch.__version__,
    }


def cpu_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


@torch.inference_mode()
def forward(model: torch.nn.Module, batches) -> torch.Tensor:
    return torch.cat([model(batch).cpu() for batch in batches])


def timm_transform(model: torch.nn.Module, size: int | None):
    config = resolve_model_data_config(model)
    if size is not None:
        config |= {"input_size": (3, size, size), "crop_pct": 1.0, "crop_mode": "squash"}
    return create_transform(**config, is_training=False)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
