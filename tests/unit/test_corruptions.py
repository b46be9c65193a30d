import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate, gaussian_filter

from diffident.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupted, kinds_of, parse_corruption
from diffident.corruptions.characters import RATES, drops, swaps, typos
from diffident.corruptions.fields import filtered, plasma, smoothed, streak
from diffident.data import open_dataset
from diffident.errors import InputError

IMAGES = kinds_of("image")
every_image_kind = pytest.mark.parametrize("kind", IMAGES)
every_text_kind = pytest.mark.parametrize("kind", kinds_of("text"))
TEXT = "The quick brown fox jumps over the lazy dog, twice; nobody minds it at all."


def picture(width=32, height=32, mode="RGB", seed=0):
    """Blurred noise: smooth, with every channel its own."""
    values = np.random.default_rng(seed).random((height, width, 3))
    values = gaussian_filter(values, (min(3, height / 4), min(3, width / 4), 0))
    values = (values - values.min()) / max(np.ptp(values), 1e-9)
    return Image.fromarray((values * 255).astype(np.uint8)).convert(mode)


def pixels_of(image):
    return np.asarray(image, dtype=np.float64) / 255


def change(kind, severity, image=None, **options):
    image = picture() if image is None else image
    options = {"sample_id": "a", **options}
    return float(np.abs(pixels_of(corrupt(image, kind, severity, **options)) - pixels_of(image)).mean())


def test_there_are_fifteen_kinds_for_images_and_three_for_text():
    assert len(IMAGES) == 15
    assert kinds_of("text") == ("typos", "drops", "swaps")
    with pytest.raises(InputError, match="must be images or texts to be corrupted; got vector data"):
        kinds_of("vector")


@every_image_kind
@pytest.mark.parametrize(
    ("size", "mode"), [((32, 32), "RGB"), ((8, 8), "L"), ((28, 20), "L"), ((70, 90), "RGB"), ((1, 1), "RGB")]
)
def test_size_and_mode_are_kept(kind, size, mode):
    image = picture(*size, mode)
    for severity in SEVERITIES:
        result = corrupt(image, kind, severity, sample_id="a")
        assert (result.size, result.mode) == (size, mode)
    assert image.tobytes() == picture(*size, mode).tobytes()


@every_image_kind
def test_the_same_id_gives_the_same_picture_whatever_came_before(kind):
    one = corrupt(picture(), kind, 3, sample_id="a").tobytes()
    corrupt(picture(seed=1), kind, 3, sample_id="b")
    np.random.seed(5)
    assert corrupt(picture(), kind, 3, sample_id="a").tobytes() == one


RANDOM = [k for k in IMAGES if k not in ("defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg")]


@every_image_kind
def test_another_id_or_seed_gives_other_randomness(kind):
    image = picture()
    one = corrupt(image, kind, 3, sample_id="a").tobytes()
    others = [corrupt(image, kind, 3, sample_id="b"), corrupt(image, kind, 3, sample_id="a", seed=1)]
    assert [other.tobytes() != one for other in others] == [kind in RANDOM] * 2


# Single parameters that rise with severity; the others trade several against each other.
@pytest.mark.parametrize("side", [32, 100])
@pytest.mark.parametrize(
    "kind", ["gaussian-noise", "shot-noise", "impulse-noise", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg"]
)
def test_severer_changes_more(kind, side):
    changes = [change(kind, severity, picture(side, side)) for severity in SEVERITIES]
    assert changes == sorted(changes)
    assert changes[0] > 0


@every_image_kind
def test_every_severity_changes_the_picture(kind):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for severity in SEVERITIES:
        assert 0.001 < change(kind, severity, noisy) < 0.6


@pytest.mark.parametrize(("side", "levels"), [(64, (0.04, 0.10)), (65, (0.08, 0.38))])
def test_noise_has_the_spread_of_the_published_sets(side, levels):
    grey = Image.new("RGB", (side, side), (128, 128, 128))
    for severity, level in zip((1, 5), levels, strict=True):
        values = pixels_of(corrupt(grey, "gaussian-noise", severity, sample_id="a"))
        inside = np.clip(np.random.default_rng(0).normal(128 / 255, level, 10**6), 0, 1)
        assert values.std() == pytest.approx(inside.std(), rel=0.05)
        shot = pixels_of(corrupt(grey, "shot-noise", severity, sample_id="a")).std()
        photons = {(64, 1): 500, (64, 5): 50, (65, 1): 60, (65, 5): 3}[side, severity]
        counts = np.clip(np.random.default_rng(0).poisson(128 / 255 * photons, 10**6) / photons, 0, 1)
        assert shot == pytest.approx(counts.std(), rel=0.05)


def test_impulses_are_black_and_white_in_equal_shares():
    grey = Image.new("L", (200, 200), 100)
    values = np.asarray(corrupt(grey, "impulse-noise", 5, sample_id="a"))
    assert set(np.unique(values)) == {0, 100, 255}
    assert (values == 0).mean() == pytest.approx(0.135, abs=0.01)
    assert (values == 255).mean() == pytest.approx(0.135, abs=0.01)


def test_brightness_and_contrast_by_hand():
    image = Image.fromarray(np.array([[[100, 40, 0], [0, 0, 0]]], dtype=np.uint8))
    # 0.2 is added to the largest channel, the others keep their share of it; black becomes grey.
    bright = np.asarray(corrupt(image, "brightness", 4, sample_id="a"))
    assert bright.tolist() == [[[151, 60, 0], [51, 51, 51]]]
    flat = np.asarray(corrupt(image, "contrast", 2, sample_id="a"))
    assert flat.tolist() == [[[75, 30, 0], [25, 10, 0]]]


def test_fog_keeps_the_largest_value_and_black_stays_black():
    assert not np.asarray(corrupt(Image.new("RGB", (9, 9)), "fog", 5, sample_id="a")).any()
    values = np.asarray(corrupt(Image.new("L", (32, 32), 200), "fog", 5, sample_id="a"))
    assert values.min() == round(200 * (200 / 255) / (200 / 255 + 1.5))
    assert values.max() == 200


def test_a_constant_picture_is_not_changed_by_blurs():
    grey = Image.new("RGB", (40, 30), (10, 120, 250))
    for kind in ("defocus-blur", "motion-blur", "zoom-blur", "elastic", "pixelate", "glass-blur"):
        for severity in SEVERITIES:
            assert np.abs(np.asarray(corrupt(grey, kind, severity, sample_id="a"), int) - (10, 120, 250)).max() <= 1


def test_large_pictures_are_brought_to_the_size_that_the_constants_are_made_for():
    assert corrupt(picture(300, 448), "contrast", 1, sample_id="a").size == (224, 335)
    assert corrupt(picture(500, 224), "contrast", 1, sample_id="a").size == (500, 224)


def test_filters_agree_with_scipy():
    generator = np.random.default_rng(0)
    pixels = generator.random((13, 9, 2)).astype(np.float32)
    kernel = generator.random((5, 7))
    for border, mode in (("reflect", "mirror"), ("edge", "nearest"), ("symmetric", "reflect")):
        expected = np.stack([correlate(pixels[:, :, c], kernel, mode=mode) for c in range(2)], axis=2)
        np.testing.assert_allclose(filtered(pixels, kernel, border), expected, atol=1e-5)
    expected = gaussian_filter(pixels.astype(np.float64), (1.5, 1.5, 0), mode="reflect", truncate=12)
    np.testing.assert_allclose(smoothed(pixels.astype(np.float64), 1.5), expected, atol=1e-6)
    np.testing.assert_allclose(smoothed(pixels, 1e6), np.broadcast_to(pixels.mean((0, 1)), pixels.shape), atol=1e-6)


def test_a_streak_goes_to_one_side():
    kernel = streak(2, 1.0, 0.0)
    weights = np.exp(-(np.arange(5) ** 2) / 2)
    np.testing.assert_allclose(kernel[5, 5:10], weights / weights.sum())
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(streak(2, 1.0, np.pi / 2), kernel.T)


@pytest.mark.parametrize("shape", [(1, 1), (5, 32), (33, 8)])
def test_plasma_fills_the_unit_interval(shape):
    field = plasma(*shape, 2, np.random.default_rng(0))
    assert field.shape == shape
    assert field.min() == 0
    assert field.max() == (0 if shape == (1, 1) else 1)


def test_plasma_is_smoother_where_its_detail_decays_faster():
    rough, fine = (np.abs(np.diff(plasma(64, 64, decay, np.random.default_rng(0)))).mean() for decay in (1.4, 3))
    assert rough > 2 * fine


@every_text_kind
def test_texts_change_by_a_share_of_their_letters(kind):
    letters = sum(letter.isalpha() for letter in TEXT)
    for severity, rate in zip(SEVERITIES, RATES, strict=True):
        result = corrupt(TEXT, kind, severity, sample_id="a")
        wanted = round(rate * letters)
        if kind == "drops":
            assert len(TEXT) - len(result) == wanted
        else:
            assert len(result) == len(TEXT)
            assert sum(a != b for a, b in zip(TEXT, result, strict=True)) == wanted * (2 if kind == "swaps" else 1)
        assert [c for c in result if not c.isalpha()] == [c for c in TEXT if not c.isalpha()]
        assert result == corrupt(TEXT, kind, severity, sample_id="a") != corrupt(TEXT, kind, severity, sample_id="b")


@every_text_kind
@pytest.mark.parametrize("text", ["", " ", "42!", "a", "aa"])
def test_texts_without_letters_to_change(kind, text):
    result = corrupt(text, kind, 5, sample_id="a")
    assert len(result) == (1 if (kind, text) == ("drops", "aa") else len(text))
    assert result == text or kind != "swaps"


def test_typos_are_neighbours_on_the_keyboard_and_keep_case():
    generator = np.random.default_rng(0)
    assert {typos("g", 1.0, generator) for _ in range(200)} == set("fhtyvb")
    assert {typos("Q", 1.0, generator) for _ in range(99)} == set("WA")
    assert {typos("p", 1.0, generator) for _ in range(99)} == set("ol")
    assert {typos("яю", 0.5, generator) for _ in range(99)} == {"юю", "яя"}


def test_drops_keep_a_letter_and_swaps_exchange_neighbours():
    generator = np.random.default_rng(0)
    assert {drops("ab", 0.5, generator) for _ in range(99)} == {"a", "b"}
    assert {swaps("abc d", 0.1, generator) for _ in range(99)} == {"bac d", "acb d"}
    assert sorted(swaps("abcdefgh", 1.0, generator)) == list("abcdefgh")


def test_a_corrupted_data_set_keeps_ids_labels_and_order():
    dataset = open_dataset("digits:test")
    noisy = corrupted(dataset, "gaussian-noise", 3)
    assert noisy.ids is dataset.ids
    assert noisy.labels is dataset.labels
    assert noisy.name == "digits:test (gaussian-noise:3)"
    assert noisy.fingerprint not in (dataset.fingerprint, corrupted(dataset, "gaussian-noise", 3, seed=1).fingerprint)
    assert noisy[5].tobytes() != dataset[5].tobytes()
    expected = corrupt(dataset[5], "gaussian-noise", 3, sample_id=str(dataset.ids[5]))
    chosen = noisy.select(np.array([5, 2]))
    assert noisy[5].tobytes() == chosen[0].tobytes() == expected.tobytes()
    assert pickle.loads(pickle.dumps(noisy))[5].tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog", r"`corruption` must be KIND:SEVERITY; got 'fog'"),
        ("fog:", r"`corruption` must be KIND:SEVERITY; got 'fog:'"),
        ("fogg:3", r"must be a known name; got 'fogg'\. Did you mean `fog`"),
        ("fog:6", r"`severity` must be one of 1, 2, 3, 4, 5; got 6"),
        ("fog:-1", r"`corruption` must be KIND:SEVERITY; got 'fog:-1'"),
    ],
)
def test_wrong_names_and_severities_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_corruption(text)


def test_another_modality_is_refused():
    assert parse_corruption("jpeg:5") == ("jpeg", 5)
    with pytest.raises(InputError, match=r"must be one of image data; got 'typos' for digits:test\. Take one of gauss"):
        corrupted(open_dataset("digits:test"), "typos", 1)
    with pytest.raises(InputError, match=r"`sample` must be an image for 'fog'; got str"):
        corrupt("text", "fog", 1, sample_id="a")
    assert {kind.modality for kind in CORRUPTIONS.values()} == {"image", "text"}
