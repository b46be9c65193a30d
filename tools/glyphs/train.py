"""Train the `glyphs` encoder on characters rendered from freely licensed fonts.

    apt-get install $(grep -v '^#' tools/glyphs/fonts.txt | cut -d' ' -f1)
    python tools/glyphs/render.py out/glyph-pictures.npz
    python tools/glyphs/train.py out/glyph-pictures.npz

Writes src/diffident/encoders/glyphs.safetensors and tools/glyphs/train-log.jsonl, which has the time, on one CPU core.
Held-out projects and a tenth of the characters are for validation alone. No handwritten data is used. The same
pictures, seed, torch and kind of CPU give the same weights, bit by bit: one thread, deterministic algorithms, a fixed
number of steps.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from augment import augment
from render import Pictures, script_of
from validate import WEIGHTS, load_network, measure, unseen_classes

from diffident.encoders.glyph_network import NUM_FEATURES, GlyphNetwork

LOG = Path(__file__).with_name("train-log.jsonl")
BATCH, PEAK_RATE, WEIGHT_DECAY, LABEL_SMOOTHING, WARM_UP = 512, 3e-3, 0.02, 0.05, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--log", type=Path, default=LOG)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    pictures = Pictures.load(arguments.pictures)
    arguments.log.write_text(json.dumps(describe(pictures, arguments)) + "\n")
    network, head = train(pictures, arguments)
    weights = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, arguments.out)
    network = load_network(arguments.out)
    result = {
        "weights_sha256": hashlib.sha256(arguments.out.read_bytes()).hexdigest(),
        "held_out_accuracy_of_the_classifier": classifier_accuracy(pictures, network, head),
        **measure(pictures, network, keep=np.ones(len(pictures.labels), dtype=bool)),
    }
    write(arguments.log, result)


def describe(pictures: Pictures, arguments: argparse.Namespace) -> dict:
    used = ~pictures.held_out & ~unseen_classes(pictures)[pictures.labels]
    return {
        "pictures": len(pictures.labels),
        "pictures_digest": pictures.digest(),
        "training_pictures": int(used.sum()),
        "training_classes": len(np.unique(pictures.labels[used])),
        "unseen_classes": int(unseen_classes(pictures).sum()),
        "training_families": len(np.unique(pictures.families[used])),
        "training_projects": len(np.unique(pictures.projects[used])),
        "held_out_families": len(np.unique(pictures.families[pictures.held_out])),
        "held_out_projects": len(np.unique(pictures.projects[pictures.held_out])),
        "scripts": len({script_of(members[0]) for members in pictures.characters}),
        "steps": arguments.steps,
        "batch": BATCH,
        "seed": arguments.seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def write(log: Path, row: dict) -> None:
    with log.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def families_of_classes(pictures: Pictures) -> list[list[np.ndarray]]:
    """The rows of each family of each class that is trained on."""
    rows = defaultdict(lambda: defaultdict(list))
    for row in np.flatnonzero(~pictures.held_out & ~unseen_classes(pictures)[pictures.labels]):
        rows[int(pictures.labels[row])][int(pictures.families[row])].append(row)
    return [[np.array(members) for members in families.values()] for _, families in sorted(rows.items())]


def draw(classes: list[list[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Rows of a batch: a class, one of its families, one of its pictures, each with equal chance."""
    chosen = [classes[k] for k in rng.integers(len(classes), size=BATCH)]
    families = [members[rng.integers(len(members))] for members in chosen]
    return np.array([rows[rng.integers(len(rows))] for rows in families])


def train(pictures: Pictures, arguments: argparse.Namespace) -> tuple[GlyphNetwork, nn.Linear]:
    """Cross-entropy over the characters; AdamW; warm-up, then one cosine cycle; bfloat16 autocast."""
    classes = families_of_classes(pictures)
    images, targets = torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels)
    network = GlyphNetwork().to(memory_format=torch.channels_last)
    head = nn.Linear(NUM_FEATURES, len(pictures.characters))
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    rng, generator = np.random.default_rng(arguments.seed), torch.Generator().manual_seed(arguments.seed)
    started, losses = time.monotonic(), []
    for step in range(arguments.steps):
        part = step / arguments.steps
        optimizer.param_groups[0]["lr"] = PEAK_RATE * min(part / WARM_UP, 1) * 0.5 * (1 + np.cos(np.pi * part))
        rows = draw(classes, rng)
        batch = augment(images[rows], generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(head(network(batch)), targets[rows], label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == arguments.steps:
            seconds, processor = round(time.monotonic() - started, 1), round(time.process_time(), 1)
            mean_loss = round(float(np.mean(losses[-100:])), 4)
            write(arguments.log, {"step": step + 1, "loss": mean_loss, "seconds": seconds, "cpu_seconds": processor})
    return network.eval(), head.eval()


@torch.inference_mode()
def classifier_accuracy(pictures: Pictures, network: GlyphNetwork, head: nn.Linear) -> dict[str, float]:
    """Part of the held-out projects' distorted pictures named right, of all trained characters and of the digits."""
    rows = np.flatnonzero(pictures.held_out & ~unseen_classes(pictures)[pictures.labels])
    generator = torch.Generator().manual_seed(1)
    images: list[Tensor] = list(torch.from_numpy(pictures.images[rows]).split(512))
    named = torch.cat([head(network(augment(part, generator))).argmax(dim=1) for part in images]).numpy()
    right = named == pictures.labels[rows]
    digits = np.array([bool(set(pictures.characters[k]) & set("0123456789")) for k in pictures.labels[rows]])
    return {"all": round(float(right.mean()), 4), "digits": round(float(right[digits].mean()), 4)}


if __name__ == "__main__":
    main()
