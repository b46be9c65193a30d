"""Every kind of model and precision: trained for a step or more, predicted again from the run folder."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.errors import InputError, UnavailableError
from diffident.models import load_preprocessor
from diffident.models.foreign import TransformersClassifier, image_input
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.storage.predictions import read_predictions
from diffident.training import predict, train

SHARED = Path(os.environ.get("DIFFIDENT_SHARED", Path(__file__).parents[2] / "../shared"))
SENTENCES = ["pay the bill", "pay the rent", "what is the time", "what time is it", "pay it", "the time please"]


def photos(count=8, size=(40, 32)):
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)) for _ in range(count)]
    ids = np.array([str(row) for row in range(count)], dtype=object)
    return Dataset("photos", "image", ids, np.arange(count) % 2, images.__getitem__, "f")


def texts():
    ids = np.array([str(row) for row in range(len(SENTENCES))], dtype=object)
    return Dataset("texts", "text", ids, np.array([0, 0, 1, 1, 0, 1]), SENTENCES.__getitem__, "f")


def assert_runs_through(data, out, **settings):
    """Train, predict from the folder alone, and demand the same logits as at the end of training."""
    train(data, load_settings(device="cpu", **{"epochs": 1, "batch_size": 4, **settings}), out=out, test=data)
    stored = read_predictions(out / "predictions" / "test.parquet")
    torch.testing.assert_close(predict(out, data).logits, stored.logits, rtol=0, atol=0)
    assert stored.logits.shape == (len(data), data.num_classes)
    return stored


@pytest.mark.parametrize(
    ("model", "size", "interpolation"),
    [
        ("resnet18-32px", (32, 40), "bilinear"),
        ("timm:test_resnet", (160, 160), "bilinear"),
        ("timm:test_vit", (160, 160), "bicubic"),
        ("torchvision:mobilenet_v3_small", (224, 224), "bilinear"),
    ],
)
def test_image_models_get_the_size_they_were_made_for(model, size, interpolation, tmp_path):
    assert_runs_through(photos(), tmp_path / "run", model=model, pretrained=False, width=8)
    prepared = load_preprocessor(tmp_path / "run")
    assert (prepared.shape, prepared.interpolation) == ((3, *size), interpolation)
    assert prepared.mean == pytest.approx([0.5] * 3, abs=0.02)  # the data's own


@pytest.mark.parametrize("model", ["timm:test_vit", "torchvision:googlenet"])
def test_an_image_size_can_be_chosen(model, tmp_path):
    assert_runs_through(photos(4), tmp_path / "run", model=model, pretrained=False, image_size=64)
    assert load_preprocessor(tmp_path / "run").shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("model", "mean"), [("timm:vit_tiny_patch16_224", (0.5,) * 3), ("torchvision:resnet18", (0.485, 0.456, 0.406))]
)
def test_what_a_pretrained_model_expects(model, mean):
    assert (image_input(model).size, image_input(model).mean) == ((224, 224), mean)


@pytest.mark.data
def test_a_pretrained_model_of_timm_is_fine_tuned(tmp_path):
    folder = SHARED / "encoders" / "mobilenetv2_100.imagenet1k"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    model = f"timm:local-dir:{folder.resolve()}"
    assert_runs_through(photos(4), tmp_path / "run", model=model, learning_rate=1e-9, image_size=64)
    prepared = load_preprocessor(tmp_path / "run")
    assert (prepared.mean, prepared.std, prepared.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    from safetensors.torch import load_file

    trained, given = load_file(tmp_path / "run/model.safetensors"), load_file(folder / "model.safetensors")
    torch.testing.assert_close(trained["1.conv_stem.weight"], given["conv_stem.weight"])


@pytest.mark.parametrize("model", ["timm:test_resnet", "transformers:no-such/model", "torchvision:resnet18"])
def test_weights_out_of_reach_are_one_line_and_leave_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    data = texts() if model.startswith("transformers") else photos()
    with pytest.raises(UnavailableError, match=f"the weights of `{model}` could not be loaded") as caught:
        train(data, load_settings(model=model, device="cpu"), out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm:resnet81", "`resnet18`"),
        ("timm:resnet18.nonsense", "`model` must have a tag of timm's; got 'nonsense'"),
        ("torchvision:resnet81", "`resnet18`"),
        ("python:nowhere:net", "`python:nowhere:net` must be importable"),
        ("python:json:dumps", r"must return an nn\.Module; got str from python:json:dumps"),
    ],
)
def test_wrong_names(model, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(photos(), load_settings(model=model, device="cpu"), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def net(): ...", "`model` must take the number of classes; python:odd_models:net does not: too many"),
        (
            "def net(classes, /, *, width): ...",
            "`model` must take the number of classes; python:odd_models:net does not",
        ),
        (
            "def net(classes): return nn.Sequential(nn.Flatten(), nn.Linear(3840, classes + 3))",
            r"`model` must give 2 logits, .* gave 5\.",
        ),
        (
            "def net(classes): return nn.Sequential(nn.Flatten(), nn.Linear(3840, classes - 1))",
            r"`model` must give 2 logits, .* gave 1\.",
        ),
    ],
)
def test_a_model_of_ones_own_that_does_not_fit_is_refused(code, message, tmp_path, monkeypatch):
    (tmp_path / "odd_models.py").write_text(f"from torch import nn\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_models", raising=False)
    with pytest.raises(InputError, match=message):
        assert_runs_through(photos(), tmp_path / "run", model="python:odd_models:net")
    assert not (tmp_path / "run").exists()


def test_python_model_from_the_current_folder(tmp_path, monkeypatch):
    code = "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3840, classes))\n"
    (tmp_path / "own_models.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert_runs_through(photos(), tmp_path / "run", model="python:own_models:net")


def test_transformers_text_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({word for text in SENTENCES for word in text.split()})]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=12, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt"), model_max_length=12).save_pretrained(tmp_path / "bert")
    model = f"transformers:{tmp_path / 'bert'}"
    stored = assert_runs_through(texts(), tmp_path / "run", model=model, epochs=30, learning_rate=0.01)
    assert (stored.logits.argmax(1) == stored.labels).all()
    check_that_fine_tuning_begins_with_little_doubt(model, tmp_path)


def check_that_fine_tuning_begins_with_little_doubt(model, folder):
    """With validation data the first doubt is that of 0.1; without, all are."""
    data, rows = texts(), np.arange(len(SENTENCES), dtype=np.float64)
    table = DifficultyTable(data.ids, np.asarray(data.labels), rows, rows / rows.max(), data.labels, -rows)
    losses = {}
    for doubt, validation in ((None, None), (None, data.select(rows[:2].astype(int))), (0.1, None), (0.4, None)):
        settings = load_settings(model=model, loss="difficulty-aware", epochs=1, device="cpu", doubt=doubt)
        name = f"{doubt}-{validation is not None}"
        run = train(
            data.select(rows[2:].astype(int)), settings, out=folder / name, difficulty=table, validation=validation
        )
        losses[name] = json.loads((run.path / "metrics.jsonl").read_text())["train_loss"]
    assert losses["None-False"] == losses["None-True"] == losses["0.1-False"] != losses["0.4-False"]


@pytest.mark.parametrize("channels", [3, 1])
def test_transformers_image_model(channels, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(image_size=8, patch_size=4, num_channels=channels, num_labels=5, **sizes)
    moments = {"image_mean": [0.4] * channels, "image_std": [0.3] * channels}
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 8, "width": 8}, **moments).save_pretrained(tmp_path / "vit")
    model = f"transformers:{tmp_path / 'vit'}"
    data = bright_and_dark()
    stored = assert_runs_through(data, tmp_path / "run", model=model, epochs=20, learning_rate=0.01)
    assert (stored.logits.argmax(1) == stored.labels).all()
    prepared = load_preprocessor(tmp_path / "run")
    assert (prepared.shape, prepared.interpolation) == ((channels, 8, 8), "bilinear")
    assert (prepared.mean, prepared.std) == ((0.4,) * channels, (0.3,) * channels)
    assert_runs_through(data, tmp_path / "large", model=model, pretrained=False, image_size=16)
    with pytest.raises(InputError, match=r"`image_size` must be 8, which .* was made for; got 16"):
        train(data, load_settings(model=model, device="cpu", image_size=16), out=tmp_path / "other")


def bright_and_dark():
    images = [Image.new("RGB", (12, 12), ((row % 2) * 200 + 10,) * 3) for row in range(8)]
    ids = np.array([str(row) for row in range(8)], dtype=object)
    return Dataset("tones", "image", ids, np.arange(8) % 2, images.__getitem__, "f")


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
@pytest.mark.parametrize("model", ["cnn-small", "ngrams"])
def test_precisions(precision, model, tmp_path):
    data = texts() if model == "ngrams" else photos()
    low = assert_runs_through(data, tmp_path / "low", model=model, precision=precision, dropout=0.0)
    full = assert_runs_through(data, tmp_path / "full", model=model, dropout=0.0)
    torch.testing.assert_close(low.logits, full.logits, rtol=0, atol=0.05)
    assert precision == "64-true" or not torch.equal(low.logits, full.logits)


def test_half_precision_on_the_cpu_is_refused(tmp_path):
    with pytest.raises(InputError, match="got '16-mixed' on the CPU"):
        train(photos(), load_settings(model="mlp", device="cpu", precision="16-mixed"), out=tmp_path / "run")


def test_features_tables_texts_and_folders(tmp_path):
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", features=generator.normal(size=(12, 5)).astype(np.float32), labels=np.arange(12) % 3)
    with open(tmp_path / "numbers.csv", "w", newline="") as file:
        rows = [[value, -value, ("low", "high")[value > 5]] for value in range(12)]
        csv.writer(file).writerows([["a", "b", "label"], *rows])
    with open(tmp_path / "texts.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *[[text, "pay" in text] for text in SENTENCES]])
    for row, image in enumerate(photos().read(row) for row in range(8)):
        (tmp_path / "photos" / f"class{row % 2}").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / f"class{row % 2}" / f"{row}.png")
    for name, model in {"f.npz": "mlp", "numbers.csv": "mlp", "texts.csv": "ngrams", "photos": "cnn-small"}.items():
        assert_runs_through(open_dataset(tmp_path / name), tmp_path / "runs" / name, model=model, width=8)


@pytest.mark.parametrize(("given", "token"), [({"pad_token_id": 3}, 3), ({"eos_token_id": 2}, 2), ({}, 0)])
def test_decoders_classify_from_the_last_word_however_long_the_other_texts_are(given, token):
    transformers = pytest.importorskip("transformers")
    none = {"pad_token_id": None, "eos_token_id": None, "bos_token_id": None}
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=16, n_layer=1, n_head=2, num_labels=2, **{**none, **given}
    )
    model = TransformersClassifier(transformers.GPT2ForSequenceClassification(config).eval(), config)
    assert model.model.config.pad_token_id == token
    short = torch.tensor([[5, 6, 7], [8, 9, -1]])
    long = torch.nn.functional.pad(short, (0, 9), value=-1)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.cat([long, torch.full((1, 12), 10)]))[:2], model(short))
        torch.testing.assert_close(model(short)[1:], model(short[1:, :2]))
