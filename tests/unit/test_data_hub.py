import io
import struct

import numpy as np
import pytest
from PIL import Image

from diffident.data import open_dataset
from diffident.errors import InputError, UnavailableError, UnreadableSampleError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No network, and caches of its own; the libraries read the environment once, when they are imported."""
    datasets.disable_progress_bars()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("DIFFIDENT_DATA", str(tmp_path / "data"))


def failure(spec, kind=InputError, **options) -> str:
    with pytest.raises(kind) as caught:
        open_dataset(spec, **options)
    return str(caught.value)


def png(level) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (2, 2), level).save(stream, "PNG")
    return stream.getvalue()


def test_hub_folder_of_texts(tmp_path):
    labels = datasets.ClassLabel(names=["good", "bad"])
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0], "noisy": [1, 1]})
    for split in ("train", "test"):
        rows.cast_column("label", labels).to_parquet(tmp_path / "notes" / "data" / f"{split}-00000-of-00001.parquet")
    dataset = open_dataset(f"hf:{tmp_path / 'notes'}")
    assert dataset.ids.tolist() == ["notes:train:000000", "notes:train:000001"]
    assert [dataset[0], dataset[1]] == ["a", "b"]
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.label_names == ("good", "bad")
    assert dataset.columns["noisy"].tolist() == [1, 1]
    assert open_dataset(f"hf:{tmp_path / 'notes'}").fingerprint == dataset.fingerprint
    assert open_dataset(f"hf:{tmp_path / 'notes'}:test").fingerprint != dataset.fingerprint
    assert failure(f"hf:{tmp_path / 'notes'}:tset").startswith(
        f'`hf:{tmp_path / "notes"}:tset` must be a data set and a split; Unknown split "tset". Should be one of'
    )
    assert failure(f"hf:{tmp_path / 'notes'}", label_column="nosy").startswith(
        f"`--label-column` must name a column of hf:{tmp_path / 'notes'}:train; got `nosy`. Did you mean `noisy`?"
    )


def test_hub_folder_of_image_files(tmp_path):
    for name, level in (("cat", 1), ("dog", 2)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "0.png").write_bytes(png(level))
    dataset = open_dataset(f"hf:{tmp_path / 'pets'}:train")
    assert dataset.label_names == ("cat", "dog")
    assert [dataset[row].getpixel((0, 0)) for row in range(2)] == [1, 2]
    assert dataset.labels.tolist() == [0, 1]


def test_hub_folder_of_images_in_parquet(tmp_path):
    images = datasets.Dataset.from_dict({"image": [{"bytes": png(3), "path": None}], "label": [0]})
    images.cast_column("image", datasets.Image()).to_parquet(tmp_path / "pets" / "train.parquet")
    assert open_dataset(f"hf:{tmp_path / 'pets'}")[0].getpixel((0, 0)) == 3
    assert open_dataset(tmp_path / "pets")[0].getpixel((0, 0)) == 3


def test_hub_folder_without_data(tmp_path):
    (tmp_path / "empty").mkdir()
    message = failure(f"hf:{tmp_path / 'empty'}")
    assert message.startswith(f"`hf:{tmp_path / 'empty'}:train` must be a data set and a split; ")
    assert "\n" not in message


def test_hub_out_of_reach():
    assert failure("hf:nobody/nothing", UnavailableError) == (
        "`hf:nobody/nothing` could not be loaded: Couldn't reach 'nobody/nothing' on the Hub (OfflineModeIsEnabled). "
        "Without network, set HF_HOME to a filled cache, or pass the folder of its Parquet files as DATA."
    )


def write_mnist(folder, labels):
    """The four files of MNIST, with blank images of a brightness each; the training part is the other way round."""
    raw = folder / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        ordered = np.uint8(labels[::-1] if part == "train" else labels)
        images = np.stack([np.full((28, 28), label, np.uint8) for label in ordered])
        for kind, magic, values in (("images-idx3", 2051, images), ("labels-idx1", 2049, ordered)):
            header = struct.pack(f">{1 + values.ndim}i", magic, *values.shape)
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + values.tobytes())


def test_torchvision_files_that_are_there(tmp_path, capsys):
    write_mnist(tmp_path / "data", [3, 1, 4])
    dataset = open_dataset("torchvision:MNIST:test")
    assert dataset.ids.tolist() == ["MNIST:test:000000", "MNIST:test:000001", "MNIST:test:000002"]
    assert dataset.labels.tolist() == [3, 1, 4]
    assert dataset.label_names[4] == "4 - four"
    assert dataset[2].getpixel((0, 0)) == 4
    train = open_dataset("torchvision:MNIST")
    assert train.labels.tolist() == [4, 1, 3]
    assert train.fingerprint != dataset.fingerprint
    assert capsys.readouterr().out == ""


def test_torchvision_makes_fake_data():
    dataset = open_dataset("torchvision:FakeData", limit=5)
    assert dataset[0].size == (224, 224)
    assert dataset.labels.max() < 10
    assert np.array_equal(np.asarray(dataset[1]), np.asarray(dataset[1]))


def test_torchvision_image_that_cannot_be_read(tmp_path):
    folder = tmp_path / "data" / "torchvision" / "eurosat" / "2750"
    for name in ("Forest", "River"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.jpg").write_bytes(png(1))
    dataset = open_dataset("torchvision:EuroSAT")
    assert dataset.label_names == ("Forest", "River")
    (folder / "River" / "0.jpg").write_bytes(b"")
    with pytest.raises(UnreadableSampleError, match="sample `EuroSAT:train:000001` must be a readable image; cannot"):
        dataset[1]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("MNST", "`torchvision:` must be followed by a data set of torchvision's; got `MNST`. Did you mean `MNIST` or"),
        ("MNIST:dev", "`torchvision:MNIST` must have split train or test; got `dev`. Choose one."),
        ("FakeData:test", "`torchvision:FakeData` must be named without a split; got `test`. Leave it out."),
        (
            "SVHN:tset",
            "`torchvision:SVHN` must be a data set that needs no more than a split; Unknown value 'tset' for argument "
            "split. Valid values are",
        ),
        (
            "ImageFolder",
            "`torchvision:ImageFolder` could not be loaded into",
        ),
    ],
)
def test_torchvision_names_that_are_wrong(spec, expected):
    assert failure(f"torchvision:{spec}", (InputError, UnavailableError)).startswith(expected)


def test_torchvision_out_of_reach(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert failure("torchvision:CIFAR10", UnavailableError) == (
        f"`torchvision:CIFAR10` could not be loaded into {tmp_path}/data/torchvision: Name or service not known. "
        "Without network, put its files there, or pass another DATA."
    )


def test_torchvision_labels_must_be_classes(monkeypatch):
    import torchvision.datasets as sets

    class Boxes(sets.FakeData):
        def __len__(self):
            return 1

        def __getitem__(self, row):
            return super().__getitem__(row)[0], {"boxes": []}

    monkeypatch.setattr(sets, "FakeData", Boxes)
    assert failure("torchvision:FakeData") == (
        "`targets` must be a number or a name; got a dict at row 0 of torchvision:FakeData:train. "
        "Choose another column."
    )
