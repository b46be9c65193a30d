import json
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.extracting import contents, encode_as, halves, thirds, unreadable, widening
from torchvision.transforms.functional import to_tensor as pil_to_tensor

from diffident.cli import main
from diffident.data import open_dataset
from diffident.encoders.callables import CallableEncoder
from diffident.encoders.vision import ImageEncoder
from diffident.errors import InputError, ResumeError, UnreadableSampleError
from diffident.extraction import extract
from diffident.storage.features import open_features, save_features


def changed_halves():
    """The same name, another code."""

    def changed(batch):
        return halves(batch) + 1

    changed.__module__, changed.__qualname__ = halves.__module__, "halves"
    return changed


@pytest.fixture
def dataset():
    return open_dataset("digits", limit=50)


def test_features_are_in_the_data_sets_order(dataset, tmp_path):
    store = extract(dataset, halves, out=tmp_path / "f", batch_size=8, shard_size=16)
    assert store.ids.tolist() == dataset.ids.tolist()
    expected = halves([dataset[row] for row in range(50)])
    np.testing.assert_array_equal(store.load().values.numpy(), expected)
    np.testing.assert_array_equal(extract(dataset, halves).values.numpy(), expected)
    assert [shard["rows"] for shard in store.shards] == [16, 16, 16, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 4}, "same settings; {f} has another: batch_size 8, now 4. Choose another folder"),
        ({"shard_size": 32}, "same settings; {f} has another: shard_size 16, now 32. Choose"),
        ({"dtype": "float16"}, "same dtype; {f} has another: float32, now float16. Choose"),
        ({"encoder": thirds}, "same encoder; {f} has another: name python:{m}:halves, now python:{m}:thirds; other f"),
        ({"encoder": changed_halves()}, "same encoder; {f} has another: other function. Choose"),
        ({"dataset": "digits"}, "same dataset; {f} has another: other samples, contents or columns; num_samples 50,"),
    ],
)
def test_another_setting_is_refused_with_what_differs(change, message, dataset, tmp_path):
    given = {"dataset": dataset, "encoder": halves, "batch_size": 8, "shard_size": 16, "out": tmp_path / "f"}
    extract(**given)
    before = contents(tmp_path / "f")
    message = message.format(f=tmp_path / "f", m=halves.__module__)
    with pytest.raises(ResumeError, match=re.escape(f"`--out` must hold features of the {message}")):
        extract(**given | change)
    assert contents(tmp_path / "f") == before


def test_another_image_size_is_refused_by_its_number(dataset, tmp_path):
    def encoder(**options):
        model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        return ImageEncoder(model, pil_to_tensor, name="tiny", **options)

    extract(dataset, encoder(image_size=32), out=tmp_path / "f")
    with pytest.raises(ResumeError, match="has another: image_size 32, now 48; precision float32, now bfloat16"):
        extract(dataset, encoder(image_size=48, precision="bfloat16"), out=tmp_path / "f")
    with pytest.raises(ResumeError, match="has another: image_size 32, now its own"):
        extract(dataset, encoder(), out=tmp_path / "f")


def test_another_selection_of_rows_is_refused(dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "f")
    other = open_dataset("digits").select(np.arange(50))
    with pytest.raises(ResumeError, match=r"same dataset; .* other samples, contents or columns"):
        extract(other, halves, out=tmp_path / "f")


def test_the_same_encoder_by_another_name_goes_on(dataset, tmp_path):
    first = extract(dataset, encode_as(halves), out=tmp_path / "f")
    renamed = CallableEncoder(halves, name="renamed", fingerprint="test")
    assert extract(dataset, renamed, out=tmp_path / "f").encoder == first.encoder == "test"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must have a readable manifest; .*manifest\.json: Expecting value"),
        ('{"shards": [', r"must have a readable manifest; .*manifest\.json: Expecting value"),
        ("[]", r"must have a readable manifest; .*manifest\.json holds no JSON object"),
        ('{"format_version": 1}', r"must have a whole manifest; .*manifest\.json lacks a good encoder"),
        ("\udc80", r"must have a readable manifest; .*manifest\.json: 'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_manifest_is_named(text, message, dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "f")
    (tmp_path / "f/manifest.json").write_text(text, errors="surrogateescape")
    for attempt in (lambda: extract(dataset, halves, out=tmp_path / "f"), lambda: open_features(tmp_path / "f")):
        with pytest.raises(InputError, match=message):
            attempt()


def test_a_lost_shard_is_named_when_resumed(dataset, tmp_path):
    extract(dataset, halves, out=tmp_path / "f", batch_size=8, shard_size=16)
    (tmp_path / "f/shard-00002.safetensors").unlink()
    with pytest.raises(ResumeError, match=r"shard-00002\.safetensors is missing or was changed\. Delete"):
        extract(dataset, halves, out=tmp_path / "f", batch_size=8, shard_size=16)


def test_a_changed_shard_is_noticed(dataset, tmp_path):
    store = extract(dataset, halves, out=tmp_path / "f", shard_size=64)
    shard = tmp_path / "f/shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"shard-00000\.safetensors is missing or was changed"):
        store.verify()


def test_a_folder_with_other_files_is_refused(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        extract(dataset, halves, out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda batch: np.zeros((1, 3)), "must give [8, d] for 8 samples; got [1, 3]"),
        (lambda batch: np.zeros(len(batch)), "must give [8, d] for 8 samples; got [8]"),
        (lambda batch: np.zeros((len(batch), 0)), "must give [8, d] for 8 samples; got [8, 0]"),
        (lambda batch: np.full((len(batch), 3), np.nan), "NaN or infinity at sample `digits:0000`"),
        (widening, "must give [n, 2] throughout; got [2, 3] from sample `digits:1725` on"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"out": "f"}, {"out": "f", "shard_size": 8}])
def test_a_wrong_encoder_is_named(encoder, message, options, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        extract(dataset, encoder, batch_size=8, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        ({"shard_size": -1}, "`shard_size` must be at least 1; got -1"),
        ({"num_workers": 0}, "`num_workers` must be at least 1; got 0"),
        ({"on_error": "ignore"}, "`on_error` must be fail or skip; got 'ignore'"),
        ({"dtype": "int8"}, "`dtype` must be float32 or float16; got 'int8'"),
    ],
)
def test_a_wrong_option_is_named(options, message, dataset):
    with pytest.raises(InputError, match=message):
        extract(dataset, **{"encoder": halves, **options})


def test_no_samples_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="`DATA` must hold samples; digits has none"):
        extract(dataset.select(np.zeros(0, dtype=np.int64)), halves, out=tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_unreadable_samples_are_skipped_by_choice_and_named(dataset, tmp_path):
    torn = unreadable(dataset, {0, 17, *range(32, 48)})
    given = {"encoder": halves, "out": tmp_path / "f", "batch_size": 8, "shard_size": 16}
    with pytest.raises(
        UnreadableSampleError, match=r"`digits:0000` .* it is torn\. Or leave such samples out with --on"
    ):
        extract(torn, **given)
    store = extract(torn, **given, on_error="skip")
    good = [row for row in range(50) if row not in (0, 17) and not 32 <= row < 48]
    assert store.ids.tolist() == dataset.ids[good].tolist()
    assert store.labels.tolist() == dataset.labels[good].tolist()
    np.testing.assert_array_equal(store.load().values.numpy(), halves([dataset[row] for row in good]))
    assert [shard["rows"] for shard in store.shards] == [15, 15, 0, 2]
    manifest = json.loads((tmp_path / "f/manifest.json").read_text())
    assert manifest["skipped"] == dataset.ids[[0, 17, *range(32, 48)]].tolist()
    assert extract(torn, halves, batch_size=8, on_error="skip").ids.tolist() == store.ids.tolist()


def test_skipping_can_begin_later_but_not_be_undone(dataset, tmp_path):
    torn = unreadable(dataset, {20})
    given = {"dataset": torn, "encoder": halves, "batch_size": 8, "shard_size": 16}
    with pytest.raises(UnreadableSampleError):
        extract(**given, out=tmp_path / "f")
    extract(**given, out=tmp_path / "f", on_error="skip")
    extract(**given, out=tmp_path / "whole", on_error="skip")
    assert contents(tmp_path / "f") == contents(tmp_path / "whole")
    with pytest.raises(ResumeError, match=r"left out 1, the first is `digits:0718`\. Give --on-error skip"):
        extract(**given, out=tmp_path / "f")


def test_nothing_readable_is_refused(dataset, tmp_path):
    torn = unreadable(dataset, range(50))
    for out in (None, tmp_path / "f"):
        with pytest.raises(UnreadableSampleError, match="must hold a readable sample; all 50 of digits failed"):
            extract(torn, halves, out=out, on_error="skip")


def test_a_sample_that_the_preprocessing_cannot_take_is_named(dataset):
    class Picky(CallableEncoder):
        def prepare(self, sample):
            if sample is last:
                raise ValueError("too small\nmore")
            return sample

    samples = [dataset[row] for row in range(50)]
    last = samples[49]
    kept = replace(dataset, read=lambda position: samples[position])
    encoder = Picky(halves, name="picky")
    with pytest.raises(UnreadableSampleError, match=r"must be one that picky can take; too small\. Replace or remove"):
        extract(kept, encoder)
    assert len(extract(kept, encoder, on_error="skip")) == 49


def test_no_more_than_a_shard_is_in_memory(dataset, tmp_path):
    alive = []

    def encode(batch):
        assert sum(reference() is not None for reference in alive) <= 2
        values = torch.ones(len(batch), 8)
        alive.append(weakref.ref(values))
        return values

    extract(open_dataset("digits", limit=400), encode_as(encode), out=tmp_path / "f", batch_size=10, shard_size=20)
    assert len(alive) == 40


def test_workers_do_not_run_far_ahead(dataset):
    read, encoded = [], []
    counting = replace(dataset, read=lambda position: read.append(position) or dataset.read(position))

    def encode(batch):
        encoded.extend(batch)
        assert len(read) <= len(encoded) + 4 * 2
        return halves(batch)

    extract(counting, encode_as(encode), batch_size=2)
    assert len(read) == len(encoded) == 50


def test_half_precision_is_half_the_space_and_read_as_float32(dataset, tmp_path):
    store = extract(dataset, thirds, out=tmp_path / "f", dtype="float16")
    exact = extract(dataset, thirds).values
    assert store.load().values.dtype == torch.float32
    assert torch.equal(store.load().values, exact.half().float())
    assert (tmp_path / "f/shard-00000.safetensors").stat().st_size < 0.6 * exact.numel() * 4
    assert json.loads((tmp_path / "f/manifest.json").read_text())["dtype"] == "float16"


def test_features_too_large_for_half_precision_are_named(dataset, tmp_path):
    large = encode_as(lambda batch: 1e5 * torch.ones(len(batch), 2))
    with pytest.raises(InputError, match=r"below 65504; got 100000 at sample `digits:0000`\. Choose --dtype float32"):
        extract(dataset, large, out=tmp_path / "f", dtype="float16")


def test_the_command_passes_its_options_on(tmp_path, capsys):
    options = "--encoder glyphs --device cpu --precision bfloat16 --num-workers 1 --dtype float16 --limit 20 --json"
    assert main(["extract", "digits", *options.split(), "--out", str(tmp_path / "f")]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "features": str(tmp_path / "f"),
        "num_samples": 20,
        "num_features": 96,
        "num_skipped": 0,
        "skipped": [],
        "encoder": "glyphs",
    }
    manifest = json.loads((tmp_path / "f/manifest.json").read_text())
    assert manifest["encoder"]["parts"]["precision"] == "bfloat16"
    assert manifest["dtype"] == "float16"
    assert main(["extract", "digits", *options.split(), "--num-workers", "0", "--out", str(tmp_path / "g")]) == 2
    assert capsys.readouterr().err.startswith("diffident: error: `num_workers` must be at least 1; got 0.")


def test_the_command_names_the_first_skipped_samples(tmp_path, capsys):
    for number in range(8):
        image = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"torn")
    assert main(["extract", "digits", "--encoder", "glyphs", "--limit", "2", "--out", str(tmp_path / "f")]) == 0
    Image.new("L", (8, 8)).save(tmp_path / "data/a/0.png")
    capsys.readouterr()
    given = ["extract", str(tmp_path / "data"), "--encoder", "glyphs", "--on-error", "skip"]
    assert main([*given, "--out", str(tmp_path / "g")]) == 0
    second = capsys.readouterr().err.splitlines()[1]
    expected = "7 unreadable samples were skipped: a/2.png, a/4.png, a/6.png, b/1.png, b/3.png, ..."
    assert second == f"{expected}. {tmp_path / 'g'}/manifest.json names them all."


def test_text_for_an_image_encoder_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n")
    with pytest.raises(InputError, match="must take text samples, which t has; glyphs takes image"):
        extract(tmp_path / "t.csv", "glyphs")


def test_other_label_columns_come_along(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(4, dtype=np.float32), labels=[0, 1, 0, 1], noisy=[1, 1, 0, 0])
    store = extract(tmp_path / "a.npz", "identity", out=tmp_path / "f")
    assert store.columns["noisy"].tolist() == [1, 1, 0, 0]
    assert open_features(tmp_path / "f", label_column="noisy").labels.tolist() == [1, 1, 0, 0]
    with pytest.raises(InputError, match="Did you mean `noisy`"):
        open_features(tmp_path / "f", label_column="nosy")


def test_features_in_memory_are_saved_and_read(dataset, tmp_path):
    features = extract(dataset, halves)
    back = save_features(features, tmp_path / "f").load()
    assert torch.equal(back.values, features.values)
    assert back.label_names == features.label_names
