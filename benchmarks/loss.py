"""Time of the difficulty-aware loss, forward and backward, over that of `F.cross_entropy`.

    python benchmarks/loss.py [--device cpu|cuda] [--threads 1 2] [--rounds 15] [--out FILE.json]

Both losses take turns on the same logits, float32; a round is as many calls as take about 20 ms, a ratio that of two
rounds beside each other, and the table has the median ratio with its quartiles. Targets: at most 1.25 on the CPU, 1.1
on a GPU, whose table also has the peak of memory beyond the logits, in units of the logits.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from diffident.losses import make_loss

SHAPES = ((256, 10), (1024, 1000), (4096, 32000))
TARGETS = {"cpu": 1.25, "cuda": 1.1}
_ROUND_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=sorted(TARGETS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="on the CPU")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    for threads in arguments.threads if arguments.device == "cpu" else [torch.get_num_threads()]:
        torch.set_num_threads(threads)
        for shape in SHAPES:
            results.append({"threads": threads, **measure(shape, arguments.device, arguments.rounds)})
            print(line_of(results[-1]), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"torch": torch.__version__, "results": results}, indent=1) + "\n")


def measure(shape: tuple[int, int], device: str, rounds: int) -> dict:
    """Both losses on one batch."""
    count, classes = shape
    logits = torch.randn(shape, device=device, requires_grad=True)
    labels, weights = torch.randint(classes, (count,), device=device), torch.rand(count, device=device)
    criterion = make_loss("difficulty-aware")
    losses = {
        "cross_entropy": lambda: functional.cross_entropy(logits, labels),
        "difficulty_aware": lambda: criterion(logits, labels, weights),
    }
    calls = max(1, round(_ROUND_SECONDS / seconds(losses["cross_entropy"], logits, 3)))
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, loss in losses.items():
            times[name].append(seconds(loss, logits, calls))
    ratios = [ours / theirs for ours, theirs in zip(times["difficulty_aware"], times["cross_entropy"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "shape": list(shape),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "milliseconds": {name: 1e3 * statistics.median(values) for name, values in times.items()},
        "ratio": middle,
        "quartiles": [low, high],
        "target": TARGETS[device],
        "memory": {name: peak(loss, logits) for name, loss in losses.items()} if device == "cuda" else None,
    }


def seconds(loss: Callable[[], torch.Tensor], logits: torch.Tensor, calls: int) -> float:
    """Mean time of a call and its backward pass."""
    synchronize(logits)
    started = time.perf_counter()
    for _ in range(calls):
        logits.grad = None
        loss().backward()
    synchronize(logits)
    return (time.perf_counter() - started) / calls


def peak(loss: Callable[[], torch.Tensor], logits: torch.Tensor) -> float:
    """Most memory of a GPU in use beyond what was, in units of the logits."""
    logits.grad = None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss().backward()
    return (torch.cuda.max_memory_allocated() - before) / logits.nbytes


def synchronize(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def line_of(result: dict) -> str:
    times, (low, high) = result["milliseconds"], result["quartiles"]
    met = "met" if result["ratio"] <= result["target"] else "missed"
    text = (
        f"{result['device']}, {result['threads']} threads, {result['shape']!s:<14} cross-entropy "
        f"{times['cross_entropy']:9.3f} ms, difficulty-aware {times['difficulty_aware']:9.3f} ms, ratio "
        f"{result['ratio']:.2f} ({low:.2f} to {high:.2f}), target {result['target']} {met}"
    )
    if result["memory"] is not None:
        text += ", memory " + ", ".join(f"{name} {value:.2f}" for name, value in result["memory"].items())
    return text


if __name__ == "__main__":
    main()
