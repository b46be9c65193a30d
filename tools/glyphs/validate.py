"""Measure a `glyphs` encoder on typefaces and characters that it was not trained on.

    python tools/glyphs/validate.py out/glyph-pictures.npz [--weights FILE] [--leave-out PROJECT ...]

Nearest class mean by Euclidean distance, on distorted pictures, of the encoder and of the raw pixels:

- held-out families: means of the training fonts' pictures, tried on those of the held-out projects, for characters seen
  in training;
- unseen characters: means of five pictures, each of another training family, tried on the held-out projects, so that
  both characters and typefaces are new to the network; mean and standard deviation over 20 draws.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from augment import augment
from render import Pictures

from diffident.encoders.glyph_network import GlyphNetwork

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "src/diffident/encoders/glyphs.safetensors"
UNSEEN, SHOTS, DRAWS, MOST_PER_CLASS = 0.1, 5, 20, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="PROJECT")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures = Pictures.load(arguments.pictures)
    left_out = np.isin(pictures.project_names[pictures.projects], arguments.leave_out)
    network = load_network(arguments.weights)
    for name, encode in (("glyphs", network), ("pixels", lambda images: images.flatten(1))):
        print(json.dumps({"encoder": name, **measure(pictures, encode, keep=~left_out)}))


def load_network(path: Path) -> GlyphNetwork:
    network = GlyphNetwork()
    network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()})
    return network.eval()


def unseen_classes(pictures: Pictures) -> np.ndarray:
    """A tenth of the classes at random, but none of the ten digits, which the encoder is to know; bool [classes]."""
    without_digits = [k for k, members in enumerate(pictures.characters) if not set(members) & set("0123456789")]
    drawn = np.random.default_rng(0).choice(without_digits, round(UNSEEN * len(pictures.characters)), replace=False)
    return np.isin(np.arange(len(pictures.characters)), drawn)


def measure(pictures: Pictures, encode: Callable[[Tensor], Tensor], *, keep: np.ndarray) -> dict:
    """Both measures of an encoder on the pictures to keep; every encoder gets the same distorted pictures."""
    unseen = unseen_classes(pictures)[pictures.labels]
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)

    def features(rows: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(pictures.images[rows]).split(512)
        with torch.inference_mode():
            return torch.cat([encode(augment(part, generator)) for part in parts]).numpy()

    test = np.flatnonzero(keep & pictures.held_out & ~unseen)
    train = rng.permutation(np.flatnonzero(~pictures.held_out & np.isin(pictures.labels, pictures.labels[test])))
    train = np.concatenate(
        [train[pictures.labels[train] == k][:MOST_PER_CLASS] for k in np.unique(pictures.labels[test])]
    )
    test = test[np.isin(pictures.labels[test], pictures.labels[train])]
    known = nearest_mean(features(train), pictures.labels[train], features(test), pictures.labels[test])
    few = [few_shot(pictures, features, keep & unseen, rng) for _ in range(DRAWS)]
    accuracies = [accuracy for accuracy, *_ in few]
    return {
        "held_out_families_accuracy": round(known, 4),
        "held_out_pictures": len(test),
        "held_out_classes": len(np.unique(pictures.labels[test])),
        "unseen_characters_accuracy": round(float(np.mean(accuracies)), 4),
        "unseen_characters_sd": round(float(np.std(accuracies, ddof=1)), 4),
        "unseen_classes": few[0][1],
        "unseen_pictures": few[0][2],
    }


def few_shot(pictures: Pictures, features: Callable, allowed: np.ndarray, rng) -> tuple[float, int, int]:
    """Accuracy for unseen characters from five pictures each, the number of classes, and of pictures tried."""
    shots, tried = [], []
    for k in np.unique(pictures.labels[allowed]):
        train = rng.permutation(np.flatnonzero(allowed & ~pictures.held_out & (pictures.labels == k)))
        _, first = np.unique(pictures.families[train], return_index=True)
        test = np.flatnonzero(allowed & pictures.held_out & (pictures.labels == k))
        if len(first) >= SHOTS and len(test):
            shots.append(train[rng.permutation(first)[:SHOTS]])
            tried.append(test)
    shots, tried = np.concatenate(shots), np.concatenate(tried)
    accuracy = nearest_mean(features(shots), pictures.labels[shots], features(tried), pictures.labels[tried])
    return accuracy, len(shots) // SHOTS, len(tried)


def nearest_mean(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Part of the test rows whose nearest class mean, by Euclidean distance, is that of their class."""
    classes = np.unique(train_labels)
    means = np.stack([train[train_labels == k].mean(axis=0) for k in classes]).astype(np.float64)
    distances = (means**2).sum(axis=1) - 2 * test @ means.T
    return float((classes[distances.argmin(axis=1)] == test_labels).mean())


if __name__ == "__main__":
    main()
