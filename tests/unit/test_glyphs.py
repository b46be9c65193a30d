import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from diffident import difficulty, fit_gaussians, open_dataset
from diffident.encoders import callables, open_encoder
from diffident.encoders.glyph_network import prepare_glyph
from diffident.gaussian import squared_distances

ROOT = Path(__file__).parents[2]
CARD = (ROOT / "docs/glyphs.md").read_text(encoding="utf-8")


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools/glyphs"))
    yield
    for name in ("fonts", "render", "augment", "validate", "evaluate"):
        sys.modules.pop(name, None)


@cache
def encoder():
    return open_encoder("glyphs", device="cpu")


def encode(images):
    return encoder().encode([encoder().prepare(image) for image in images])


@cache
def digits():
    """Images, labels, glyph features and pixels of every third digit."""
    dataset = open_dataset("digits")
    images = [dataset[row] for row in range(0, len(dataset), 3)]
    pixels = torch.stack([torch.from_numpy(np.asarray(image, dtype=np.float32).reshape(-1)) for image in images])
    return images, torch.as_tensor(dataset.labels[::3]), encode(images), pixels


def test_size():
    weights = ROOT / "src/diffident/encoders/glyphs.safetensors"
    assert weights.stat().st_size <= 2_000_000
    assert encode([Image.new("L", (8, 8))]).shape == (1, 96)


def test_same_features_again_and_from_another_instance():
    images, _, features, _ = digits()
    again = open_encoder("glyphs", device="cpu")
    assert torch.equal(again.encode([again.prepare(image) for image in images]), features)


def test_features_do_not_depend_on_the_batch():
    images, _, features, _ = digits()
    alone = torch.cat([encode([image]) for image in images[:8]])
    torch.testing.assert_close(alone, features[:8], rtol=1e-4, atol=1e-4)


def test_dark_on_light_equals_light_on_dark():
    images, _, features, _ = digits()
    inverted = encode([ImageOps.invert(image) for image in images])
    assert (inverted - features).norm(dim=1).max() < 0.02 * features.norm(dim=1).mean()


@pytest.mark.parametrize("darkest", [20, 60, 150])
def test_contrast_and_colour_do_not_matter(darkest):
    images, _, features, _ = digits()
    faint = [image.point(lambda level: darkest + level // 3).convert("RGB") for image in images]
    assert (encode(faint) - features).norm(dim=1).max() < 0.05 * features.norm(dim=1).mean()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (32, 32)])
def test_a_blank_page_is_black_whatever_its_size_and_shade(size):
    for level in (0, 100, 255):
        assert torch.equal(prepare_glyph(Image.new("L", size, level)), torch.zeros(1, 32, 32))


def test_fingerprint_is_stable_and_follows_precision_and_weights(monkeypatch):
    fingerprint = encoder().fingerprint
    assert open_encoder("glyphs", device="cpu").fingerprint == fingerprint
    assert open_encoder("glyphs", device="cpu", precision="bfloat16").fingerprint != fingerprint
    monkeypatch.setattr(callables, "load_file", lambda path: altered(path))
    assert open_encoder("glyphs", device="cpu").fingerprint != fingerprint


def altered(path):
    weights = load_file(path)
    weights["project.bias"][0] += 1
    return weights


def test_nearest_class_mean_beats_pixels_on_digits():
    _, labels, features, pixels = digits()
    train = torch.arange(len(labels)) % 2 == 0
    errors = []
    for values in (features, pixels):
        state = fit_gaussians(values[train], labels[train])
        errors.append(float((squared_distances(state, values[~train]).argmin(dim=1) != labels[~train]).double().mean()))
    assert errors[0] < 0.5 * errors[1]


def test_difficulty_finds_flipped_labels_better_than_on_pixels():
    _, labels, features, pixels = digits()
    misses = []
    for values in (features, pixels):
        areas = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            flipped = torch.from_numpy(rng.random(len(labels)) < 0.1)
            given = torch.where(flipped, (labels + torch.from_numpy(rng.integers(1, 10, len(labels)))) % 10, labels)
            areas.append(roc_auc_score(flipped, difficulty(fit_gaussians(values, given), values, given)))
        misses.append(1 - np.mean(areas))
    assert misses[0] < 0.5 * misses[1]


def test_the_evaluations_own_gaussians_are_the_formulas(tools):
    from evaluate import squared_distances as written_out

    labels, values = np.repeat(np.arange(10), 2), np.linspace(-1, 1, 40).reshape(20, 2) ** [2, 3]
    to_class, to_background = written_out(values, labels, values, 0.1)
    state = fit_gaussians(torch.from_numpy(values), torch.from_numpy(labels), shrinkage=0.1)
    np.testing.assert_allclose(to_class, squared_distances(state, torch.from_numpy(values)), rtol=1e-9)
    expected = difficulty(state, torch.from_numpy(values), torch.from_numpy(labels))
    np.testing.assert_allclose(to_class[np.arange(20), labels] - to_background, expected, atol=1e-9)


def test_the_card_counts_the_font_packages_by_licence(tools):
    from fonts import licence_table, read_packages

    assert licence_table(read_packages()) in CARD


def test_a_broken_line_of_the_font_list_is_named(tools, tmp_path):
    from fonts import read_packages

    (tmp_path / "fonts.txt").write_text("# comment\nfonts-hack | 3.003-3 | MIT | Hack\n")
    with pytest.raises(SystemExit, match="at line 2"):
        read_packages(tmp_path / "fonts.txt")


@pytest.mark.slow
def test_the_cards_figures(tools, capsys):
    from evaluate import NUM_SPLITS, main

    assert NUM_SPLITS == 20
    main([])
    table = re.findall(r"^\| (?:glyphs|raw pixels).* ± .* ± .*$", CARD, re.MULTILINE)
    assert [figures(line) for line in table] == [figures(line) for line in capsys.readouterr().out.splitlines()]


def figures(line):
    return re.findall(r"[01]\.\d{4}", line)
