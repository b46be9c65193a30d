import numpy as np
import pytest

from diffident.data import open_dataset
from diffident.errors import InputError


def message(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(path, **options)
    return str(caught.value)


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_features_with_ids_names_and_other_labels(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"labels": [1, 0], "ids": [7, 8], "label_names": [b"cat", b"dog"], "noisy": [1, 1], "said": ["dog", "cat"]}
    np.savez(path, features=np.eye(2), box=np.zeros((2, 4)), **arrays)
    dataset = open_dataset(path)
    assert dataset.modality == "vector"
    assert dataset[0].dtype == np.float32
    assert dataset.ids.tolist() == ["7", "8"]
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.label_names == ("cat", "dog")
    assert {name: column.tolist() for name, column in dataset.columns.items()} == {"noisy": [1, 1], "said": [1, 0]}
    assert open_dataset(path, label_column="said").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "images",
    [IMAGES, IMAGES[..., None], IMAGES / np.float32(255), (IMAGES / 255).astype(np.float16)],
    ids=["uint8", "channel", "float32", "float16"],
)
def test_grey_images(images, tmp_path):
    np.savez(tmp_path / "a.npz", images=images)
    dataset = open_dataset(tmp_path / "a.npz")
    assert dataset.labels is None
    assert dataset[1].mode == "L"
    assert np.abs(np.asarray(dataset[1]).astype(int) - IMAGES[1]).max() == 0


def test_colour_images_and_masks(tmp_path):
    np.save(tmp_path / "a.npy", np.full((1, 2, 2, 3), 9, dtype=np.uint8))
    assert open_dataset(tmp_path / "a.npy")[0].getpixel((0, 0)) == (9, 9, 9)
    np.save(tmp_path / "b.npy", np.ones((1, 2, 2), dtype=bool))
    assert open_dataset(tmp_path / "b.npy")[0].getpixel((0, 0)) == 255


@pytest.mark.parametrize("name", ["labels.npy", "a_labels.npy"])
def test_npy_with_labels_beside_it(name, tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    np.save(tmp_path / name, np.array(["y", "x"]))
    assert open_dataset(tmp_path / "a.npy").labels.tolist() == [1, 0]


def test_fingerprint_follows_values_and_shape(tmp_path):
    prints = set()
    for values in (np.zeros((2, 6)), np.zeros((3, 4)), np.zeros((2, 6), np.float32), np.ones((2, 6))):
        np.savez(tmp_path / "a.npz", features=values)
        prints.add(open_dataset(tmp_path / "a.npz").fingerprint)
    assert len(prints) == 4


HOW = "Save plain numbers and strings with numpy.savez, without objects."
MISTAKES = {
    "nothing": ({}, "`DATA` must hold `images` or `features`; {path} holds nothing. Rename one."),
    "other names": ({"z": [1]}, "`DATA` must hold `images` or `features`; {path} holds z. Rename one."),
    "objects": (
        {"x": np.array([{}])},
        "`DATA` must be a readable .npz; {path} is not: it holds pickled objects. " + HOW,
    ),
    "scalar": (
        {"x": 3.0},
        "`images` must be [n, h, w], [n, h, w, 1] or [n, h, w, 3], `features` [n, d]; got [] in {path}. "
        "Transpose the array.",
    ),
    "channels first": (
        {"x": np.zeros((2, 3, 8, 8))},
        "`images` must be [n, h, w], [n, h, w, 1] or [n, h, w, 3], `features` [n, d]; got [2, 3, 8, 8] in {path}. "
        "Transpose the array.",
    ),
    "no samples": (
        {"x": np.zeros((0, 3))},
        "`DATA` must hold samples; {path} is of shape [0, 3]. Choose another file.",
    ),
    "words": (
        {"x": [["a"]]},
        "`DATA` must hold numbers; got <U1 in {path}. Save it as float32 or uint8.",
    ),
    "NaN": (
        {"x": [[0.0], [np.nan]]},
        "`features` must be finite; got NaN or infinity at row 1 of {path}. Mend that row.",
    ),
    "beyond float32": (
        {"x": [[1e99]]},
        "`features` must be finite; got NaN or infinity at row 0 of {path}. Mend that row.",
    ),
    "bright": (
        {"x": np.full((1, 2, 2), 255.0)},
        "`images` must be uint8, or floats in [0, 1]; got float64 beyond that in {path}. Scale it.",
    ),
    "NaN image": (
        {"x": np.full((1, 2, 2), np.nan)},
        "`images` must be uint8, or floats in [0, 1]; got float64 beyond that in {path}. Scale it.",
    ),
    "too few labels": (
        {"x": np.eye(2), "y": [0]},
        "`y` must be one per sample, [2]; got [1] in {path}. Match them.",
    ),
    "one-hot labels": (
        {"x": np.eye(2), "y": np.eye(2)},
        "`y` must be one per sample, [2]; got [2, 2] in {path}. Match them.",
    ),
    "labels of dates": (
        {"x": np.eye(1), "y": np.array(["2020-01-01"], "datetime64[D]")},
        "`y` must hold numbers or text; got datetime64[D] in {path}. Save it anew.",
    ),
    "labels of other bytes": (
        {"x": np.eye(1), "y": np.array([b"\xff"])},
        "`y` must be ASCII or str; got other bytes in {path}. Save it as str.",
    ),
    "too few names": (
        {"x": np.eye(2), "y": [0, 1], "label_names": ["a"]},
        "`y` must be in [0, 1); got 1 at row 1 of {path}. Re-index the labels, or mend the list of label names.",
    ),
    "names twice": (
        {"x": np.eye(2), "y": [0, 1], "label_names": ["a", "a"]},
        "`label_names` must be unique; got 'a' twice in {path}. Rename one.",
    ),
    "one name": (
        {"x": np.eye(2), "label_names": "a"},
        "`label_names` must be one per class; got [] in {path}. Save them as [k].",
    ),
    "unknown name": (
        {"x": np.eye(2), "y": ["a", "bb"], "label_names": ["a", "b"]},
        "`y` must be a known label name; got 'bb' at row 1 of {path}. Did you mean `b`? Choices: a, b.",
    ),
    "ids twice": (
        {"x": np.eye(2), "ids": ["a", "a"]},
        "`ids` must be unique; got 'a' at rows 0 and 1 of {path}. Choose another id column.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_npz_says_what_where_and_how(mistake, tmp_path):
    arrays, expected = MISTAKES[mistake]
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert message(path) == expected.format(path=path)


@pytest.mark.parametrize("size", [0, 100, 300])
def test_truncated_npz(size, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, features=np.eye(9))
    path.write_bytes(path.read_bytes()[:size])
    assert message(path) == f"`DATA` must be a readable .npz; {path} is not: it is no whole zip archive. {HOW}"


def test_npz_with_a_changed_byte(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, features=np.eye(30))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    assert message(path) == (
        f"`DATA` must be a readable .npz; {path} is not: Bad CRC-32 for file 'features.npy'. {HOW}"
    )


@pytest.mark.parametrize("broken", ["a.npy", "labels.npy"])
def test_truncated_npy(broken, tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    np.save(tmp_path / "labels.npy", np.arange(3))
    path = tmp_path / broken
    path.write_bytes(path.read_bytes()[:50])
    name = "DATA" if broken == "a.npy" else "labels"
    assert message(tmp_path / "a.npy") == (
        f"`{name}` must be a readable .npy; {path} is not: EOF: reading array header, expected 118 bytes got 40. "
        "Save plain numbers and strings with numpy.save, without objects."
    )


@pytest.mark.parametrize(
    ("spec", "option"), [("a.npz", "text_column"), ("a.npy", "label_column"), ("digits", "id_column")]
)
def test_columns_are_refused_where_there_are_none(spec, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", features=np.eye(2))
    np.save(tmp_path / "a.npy", np.eye(2))
    assert message(spec, **{option: "x"}) == (
        f"`--{option.replace('_', '-')}` must be used with a table; {spec} has no columns. Leave it out."
    )


def test_unknown_array_for_labels(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(2), labels=[0, 1])
    assert message(tmp_path / "a.npz", label_column="lables") == (
        f"`--label-column` must name an array of {tmp_path}/a.npz; got `lables`. Did you mean `labels`? "
        "Choices: features, labels."
    )


def test_digits_splits_share_no_ids_and_limit_keeps_ids():
    splits = [open_dataset(f"digits:{split}") for split in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [1000, 197, 600]
    assert len(set(np.concatenate([split.ids for split in splits]))) == 1797
    assert open_dataset("digits", limit=3).ids.tolist() == ["digits:0000", "digits:0599", "digits:1198"]
    assert message("digits:tset") == (
        "`digits` must have a known split; got `tset`. Did you mean `test`? Choices: test, train, validation."
    )
