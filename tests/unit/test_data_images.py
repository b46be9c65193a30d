import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from diffident.data import open_dataset
from diffident.data.samples import decode_image
from diffident.errors import InputError, UnreadableSampleError


def encoded(image, kind="PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2), level).save(path)


def message(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **options)
    return str(caught.value)


def test_folders_are_classes_at_any_depth_in_any_case(tmp_path):
    for name in ("a/1.PNG", "a/deep/er/2.Jpg", "b/ü ñ 漢.png", "b/.hidden.png"):
        save(tmp_path / name)
    (tmp_path / "b/notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no image")
    (tmp_path / ".git").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.ids.tolist() == ["a/1.PNG", "a/deep/er/2.Jpg", "b/ü ñ 漢.png"]
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.label_names == ("a", "b")
    assert [dataset[row].size for row in range(3)] == [(2, 2)] * 3


def test_fingerprint_of_a_folder_follows_its_files(tmp_path):
    save(tmp_path / "a/1.png")
    before = open_dataset(tmp_path).fingerprint
    assert open_dataset(tmp_path).fingerprint == before
    save(tmp_path / "a/2.png")
    assert open_dataset(tmp_path).fingerprint != before


def test_images_alone_have_no_labels(tmp_path):
    for name in ("2.png", "1.jpg", ".hidden.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    dataset = open_dataset(tmp_path)
    assert dataset.ids.tolist() == ["1.jpg", "2.png"]
    assert (dataset.labels, dataset.label_names, dataset.num_classes) == (None, None, 0)
    assert dataset[1].size == (2, 2)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [],
            "`DATA` must be a folder of class folders; {0} has none, nor images. Put each class's images in a folder.",
        ),
        (["a/1.png", "2.png"], "`DATA` must have every image in a class folder; {0}/2.png is in none. Move it."),
        (["train/a/1.png", "test/a/1.png"], "`DATA` must be one split; {0} holds test, train. For example: {0}/test."),
    ],
)
def test_misplaced_images_are_named(files, expected, tmp_path):
    for name in files:
        save(tmp_path / name)
    assert message(tmp_path) == expected.format(tmp_path)


def test_split_of_an_image_folder_is_refused(tmp_path):
    save(tmp_path / "train/a/1.png")
    assert message(f"{tmp_path}:train") == (
        f"`DATA` must be Parquet to have splits; got {tmp_path}:train. Name a folder: {tmp_path / 'train'}."
    )


def test_name_that_is_no_utf8_is_refused(tmp_path):
    save(tmp_path / "a" / "\udcff.png")
    assert message(tmp_path) == f"`DATA` must have file names in UTF-8; got 'a/\\udcff.png' in {tmp_path}. Rename it."


def test_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    assert message(tmp_path) == f"`DATA` must be readable; {tmp_path}: Permission denied. Check its rights."


RED, CLEAR = (255, 0, 0), (255, 0, 0, 0)
SIXTEEN = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
PALETTE = Image.new("RGB", (2, 1), RED).quantize(2)
PICTURES = {
    "grey": (encoded(Image.new("L", (2, 1), 7)), "L", [7, 7]),
    "colour": (encoded(Image.new("RGB", (1, 1), RED)), "RGB", [RED]),
    "one bit": (encoded(Image.new("1", (2, 1), 1)), "L", [255, 255]),
    "transparent": (encoded(Image.new("RGBA", (1, 1), CLEAR)), "RGB", [(255, 255, 255)]),
    "half transparent": (encoded(Image.new("LA", (1, 1), (0, 128))), "L", [127]),
    "transparent colour": (encoded(Image.new("L", (1, 1), 7), transparency=7), "L", [255]),
    "palette": (encoded(PALETTE), "RGB", [RED, RED]),
    "transparent palette": (encoded(PALETTE, transparency=PALETTE.getpixel((0, 0))), "RGB", [(255, 255, 255)] * 2),
    "16 bits": (encoded(SIXTEEN), "L", [0, 100, 255]),
    "16 bits TIFF": (encoded(SIXTEEN, "TIFF"), "L", [0, 100, 255]),
    "ink": (encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), "RGB", [RED]),
    "animation": (
        encoded(Image.new("RGB", (1, 1), RED), "GIF", save_all=True, append_images=[Image.new("RGB", (1, 1))]),
        "RGB",
        [RED],
    ),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture_is_grey_or_colour(kind):
    content, mode, pixels = PICTURES[kind]
    image = decode_image(content, "s")
    assert image.mode == mode
    assert list(image.get_flattened_data() if hasattr(image, "get_flattened_data") else image.getdata()) == pixels


def test_photographs_are_upright():
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_image(encoded(image, "JPEG", exif=exif), "s").size == (4, 8)


NOISE = Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8))
WHOLE = encoded(NOISE, "JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "cannot identify image file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "cannot identify image file"),
        (WHOLE[:-500], "image file is truncated (19 bytes not processed)"),
        (
            encoded(Image.new("F", (1, 1)), "TIFF"),
            "it has pixels of 32 bits, whose white is unknown; save it with 8 or 16",
        ),
    ],
)
def test_what_is_no_whole_picture_is_named(content, reason):
    with pytest.raises(UnreadableSampleError) as caught:
        decode_image(content, "a/1.png")
    assert str(caught.value) == f"sample `a/1.png` must be a readable image; {reason}. Replace or remove it."


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA"])
def test_damaged_pictures_are_read_or_named(kind):
    generator = np.random.default_rng(0)
    whole = encoded(NOISE.crop((0, 0, 16, 16)), kind)
    for _ in range(40):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        damaged[generator.integers(len(damaged), size=8)] = generator.integers(256, size=8)
        with contextlib.suppress(UnreadableSampleError):
            assert decode_image(damaged[: generator.integers(1, len(damaged) + 1)].tobytes(), "s").mode in ("L", "RGB")


def test_hidden_folders_in_a_class_are_left_out(tmp_path):
    for name in ("cat/0.png", "cat/.ipynb_checkpoints/0-checkpoint.png", "dog/deep/1.png", "dog/.cache/thumb.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    assert open_dataset(tmp_path).ids.tolist() == ["cat/0.png", "dog/deep/1.png"]


def test_16_bits_become_8_in_every_format_that_has_them(tmp_path):
    pixels = np.array([[0, 65535], [256 * 7, 256 * 8 + 255]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 65535\n" + pixels.astype(">u2").tobytes())
    for name in ("a.png", "a.pgm"):
        image = decode_image((tmp_path / name).read_bytes(), name)
        assert np.asarray(image).tolist() == [[0, 255], [7, 8]]
