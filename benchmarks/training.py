"""Samples per second of the training loop, beside a bare loop written by hand; and what difficulty takes of a step.

    python benchmarks/training.py [--model resnet18-32px] [--width 16] [--device cpu] [--out FILE]

Every repeat times one epoch of each, one after the other and in turns first, on the same images, network, optimizer,
schedule and augmentation: a loop as one writes it (`bare`), and diffident's with cross-entropy and with the
difficulty-aware loss. Neither validates nor writes a checkpoint in the time that counts. Ratios are taken within a
repeat, because other work on the machine slows all; their median is reported with the quartiles. `processor` is the
same ratio of processor time, which other work disturbs less; that of diffident's loop has the checkpoint in it.
On the CPU diffident's loop lets the process keep freed memory, from the first repeat on for the bare loop too.

`difficulty` is the share of a step that the weights and the entropy bonus take: forward and backward of both losses on
logits of the run's shape, and the rows of the weights, timed by themselves; the difference, divided by the time of a
step of the bare loop.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from diffident.losses import make_loss
from diffident.models import Preprocessor, build_model
from diffident.settings import TrainingSettings, load_settings
from diffident.training.checkpoints import Checkpoints
from diffident.training.inference import make_fabric
from diffident.training.loop import fit, set_up
from diffident.training.progress import Progress
from diffident.training.sources import InMemory, Samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18-32px")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    settings = load_settings(
        model=arguments.model,
        width=arguments.width,
        device=arguments.device,
        precision=arguments.precision,
        batch_size=arguments.batch_size,
        channels_last=arguments.channels_last,
        augment="crop-flip",
        epochs=1,
    )
    samples = random_images(arguments.samples, arguments.classes)
    result = compare(settings, samples, arguments.classes, arguments.repeats)
    result["difficulty"] = difficulty_share(settings, samples, arguments.classes, result["seconds_per_step"])
    report = {"torch": torch.__version__, "threads": torch.get_num_threads(), **vars(arguments), **result}
    report["out"] = str(arguments.out)
    for name in ("cross-entropy", "difficulty-aware"):
        low, middle, high = report[name]
        processor = report["processor"][name]
        print(f"{name}: {middle:.3f} of the bare loop's rate ({low:.3f} to {high:.3f}); processor {processor:.3f}")
    print(f"bare: {report['bare_samples_per_second']:,.0f} samples/s")
    print(f"difficulty: {report['difficulty']:.3%} of a step")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def random_images(count: int, classes: int) -> Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Samples(images, labels, torch.rand(count, generator=generator).clamp(min=0.01))


def network_for(settings: TrainingSettings, classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    preprocessor = Preprocessor("image", (3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    return build_model(settings, preprocessor, classes)


def compare(settings: TrainingSettings, samples: Samples, classes: int, repeats: int) -> dict:
    runs: dict[str, Callable[[], tuple[float, float]]] = {"bare": lambda: bare(settings, samples, classes)}
    for loss in ("cross-entropy", "difficulty-aware"):
        runs[loss] = lambda loss=loss: ours(replace(settings, loss=loss), samples, classes)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        order = list(runs) if repeat % 2 else list(reversed(runs))
        for name in order:
            taken, worked = runs[name]()
            if repeat:  # the first is to warm up
                seconds[name].append(taken)
                processor[name].append(worked)
    steps = math.ceil(len(samples) / settings.batch_size)
    result: dict = {"seconds": seconds, "seconds_per_step": statistics.median(seconds["bare"]) / steps}
    result["bare_samples_per_second"] = len(samples) / statistics.median(seconds["bare"])
    for name in ("cross-entropy", "difficulty-aware"):
        ratios = [one / other for one, other in zip(seconds["bare"], seconds[name], strict=True)]
        result[name] = statistics.quantiles(ratios, n=4)
    base = statistics.median(processor.pop("bare"))
    result["processor"] = {name: base / statistics.median(times) for name, times in processor.items()}
    return result


def bare(settings: TrainingSettings, samples: Samples, classes: int) -> tuple[float, float]:
    """Seconds and processor seconds of one epoch of a loop as one writes it; of this library it has the network."""
    device = make_fabric(settings).device
    model = network_for(settings, classes).to(device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    steps = math.ceil(len(samples) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps + 1)
    images, labels = samples.inputs.to(device), samples.labels.to(device)
    half = settings.precision == "bf16-mixed"
    wait(device)
    started, worked = time.perf_counter(), time.process_time()
    model.train()
    total = torch.zeros((), device=device)
    for rows in torch.randperm(len(labels)).split(settings.batch_size):
        rows = rows.to(device)
        batch = crop_and_flip(images[rows])
        if settings.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = functional.cross_entropy(model(batch), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.detach()
    total.item()
    return time.perf_counter() - started, time.process_time() - worked


def crop_and_flip(images: torch.Tensor, pad: int = 4) -> torch.Tensor:
    count, _, height, width = images.shape
    padded = functional.pad(images, (pad, pad, pad, pad))
    device = images.device
    rows = torch.randint(2 * pad + 1, (count, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * pad + 1, (count, 1), device=device) + torch.arange(width, device=device)
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    samples = torch.arange(count, device=device)[:, None, None, None]
    channels = torch.arange(3, device=device)[None, :, None, None]
    return padded[samples, channels, rows[:, None, :, None], columns[:, None, None, :]]


def ours(settings: TrainingSettings, samples: Samples, classes: int) -> tuple[float, float]:
    """Seconds of the steps of one epoch of diffident's loop, and processor seconds of all that it does."""
    fabric = make_fabric(settings)
    seen: list[Progress] = []
    source = InMemory(samples, fabric.device)
    training = set_up(
        fabric,
        network_for(settings, classes),
        source,
        settings,
        augmented=settings.augment != "none",
        report=seen.append,
    )
    worked = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(training, Checkpoints(Path(folder), math.inf), Path(folder))
    return len(samples) / seen[-1].samples_per_second, time.process_time() - worked


def difficulty_share(settings: TrainingSettings, samples: Samples, classes: int, step: float) -> float:
    device = make_fabric(settings).device
    rows = torch.randperm(len(samples))[: settings.batch_size].to(device)
    labels, weights = samples.labels.to(device)[rows], samples.weights.to(device)  # type: ignore[union-attr]
    logits = torch.randn(len(rows), classes, device=device, requires_grad=True)
    plain, aware = make_loss("cross-entropy"), make_loss("difficulty-aware")
    base = seconds_of(lambda: plain(logits, labels, None).backward(), device)
    whole = seconds_of(lambda: aware(logits, labels, weights[rows]).backward(), device)
    return max(0.0, whole - base) / step


def seconds_of(function: Callable[[], None], device: torch.device, calls: int = 200, repeats: int = 9) -> float:
    """The least of the mean times: what the call takes where nothing disturbs it."""
    times = []
    for _ in range(repeats):
        wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            function()
        wait(device)
        times.append((time.perf_counter() - started) / calls)
    return min(times)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
