import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torchvision import transforms

import diffident
from diffident.data import open_dataset
from diffident.encoders import open_encoder
from diffident.encoders.hugging_face import from_transformers_vision
from diffident.encoders.vision import ImageEncoder, from_open_clip, from_timm
from diffident.errors import InputError, UnavailableError
from diffident.extraction import extract

TOWER = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}


def images(count=5, size=(40, 30)):
    noise = np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


def encode(encoder, samples):
    return encoder.encode([encoder.prepare(sample) for sample in samples])


def fingerprints(first, second):
    return len({first.fingerprint, second.fingerprint})


@pytest.fixture
def network():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", pretrained=False, num_classes=0)


def test_timm_features_are_those_of_its_own_pipeline(network):
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    with torch.inference_mode():
        expected = network.eval()(torch.stack([transform(image) for image in images()]))
    actual = encode(from_timm(network, name="tiny"), images())
    assert actual.shape == (5, 512)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("early", [True, False], ids=["cpu", "accelerator"])
def test_splitting_the_transform_changes_no_bit(early, monkeypatch):
    steps = [transforms.Resize(16), transforms.CenterCrop((16, 12)), transforms.ToTensor()]
    steps += [transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))]
    expected = torch.stack([transforms.Compose(steps)(image) for image in images()]).flatten(1)
    encoder = ImageEncoder(torch.nn.Identity(), transforms.Compose(steps), name="pixels", device="cpu")
    monkeypatch.setattr(encoder, "_normalizes_early", early)  # an accelerator gets bytes
    assert encoder.prepare(images()[0]).dtype == (torch.float32 if early else torch.uint8)
    assert torch.equal(encode(encoder, images()), expected)


def test_another_transform_runs_as_it_is():
    encoder = ImageEncoder(torch.nn.Identity(), transforms.Compose([transforms.ToTensor()]), name="pixels")
    assert torch.equal(encode(encoder, images()), torch.stack(list(map(transforms.ToTensor(), images()))).flatten(1))


def test_grey_images_are_taken(network):
    grey = [image.convert("L") for image in images()]
    colour = [image.convert("RGB") for image in grey]
    encoder = from_timm(network, name="tiny", image_size=32)
    assert torch.equal(encode(encoder, grey), encode(encoder, colour))


def test_features_do_not_depend_on_the_batch(network):
    encoder = from_timm(network, name="tiny", image_size=64)
    alone = torch.cat([encode(encoder, [image]) for image in images()])
    torch.testing.assert_close(encode(encoder, images()), alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(encode(encoder, images()), encode(encoder, images()))


def test_image_size_resizes_the_whole_picture(network):
    encoder = from_timm(network, name="tiny", image_size=48)
    assert encoder.prepare(images()[0]).shape == (48, 48, 3)
    assert encoder.parts["image_size"] == "48"


def test_bfloat16_is_near_float32(network):
    exact = encode(from_timm(network, name="tiny", image_size=64), images())
    rough = encode(from_timm(network, name="tiny", image_size=64, precision="bfloat16"), images())
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02


def test_half_precision_weights_are_computed_in_float32(network):
    half = from_timm(network.half(), name="tiny", image_size=32)
    assert encode(half, images()).isfinite().all()


def test_the_fingerprint_changes_with_all_that_changes_a_feature(network):
    first = from_timm(network, name="tiny", image_size=32)
    assert fingerprints(first, from_timm(network, name="other name", image_size=32)) == 1
    assert fingerprints(first, from_timm(network, name="tiny", image_size=48)) == 2
    assert fingerprints(first, from_timm(network, name="tiny", image_size=32, precision="bfloat16")) == 2
    with torch.no_grad():
        network.conv1[0].weight[0, 0, 0, 0] += 1e-3
    assert fingerprints(first, from_timm(network, name="tiny", image_size=32)) == 2


def test_the_fingerprint_changes_with_a_step_of_ones_own():
    def encoder(step):
        transform = transforms.Compose([transforms.Lambda(step), transforms.ToTensor()])
        return ImageEncoder(torch.nn.Identity(), transform, name="pixels")

    assert fingerprints(encoder(lambda x: x), encoder(lambda x: x)) == 1
    assert fingerprints(encoder(lambda x: x), encoder(lambda x: x.rotate(90))) == 2


def clip_model():
    torch.manual_seed(0)
    return open_clip.CLIP(embed_dim=24, vision_cfg=TOWER, text_cfg=TEXT)


def test_open_clip_features_are_those_of_its_own_pipeline():
    model, transform = clip_model(), open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(image) for image in images()]))
    encoder = from_open_clip(model, transform, name="tiny")
    assert encoder.prepare(images()[0]).shape == (32, 32, 3)
    torch.testing.assert_close(encode(encoder, images()), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def tiny_clip(tmp_path):
    (tmp_path / "ViT-tiny-test.json").write_text(
        f'{{"embed_dim": 24, "vision_cfg": {TOWER}, "text_cfg": {TEXT}}}'.replace("'", '"')
    )
    open_clip.add_model_config(tmp_path)
    model = clip_model()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return model, f"open_clip:ViT-tiny-test/{tmp_path / 'weights.pt'}"


def test_open_clip_takes_a_checkpoint(tiny_clip):
    model, name = tiny_clip
    expected = encode(from_open_clip(model, open_clip.image_transform(32, is_train=False), name="tiny"), images())
    torch.testing.assert_close(encode(open_encoder(name), images()), expected, rtol=1e-4, atol=1e-5)
    larger = open_encoder(name, image_size=48)
    assert larger.prepare(images()[0]).shape == (48, 48, 3)
    assert encode(larger, images()).shape == (5, 24)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-33/openai", "Did you mean `ViT-B-32`"),
        ("open_clip:ViT-B-32/opanai", "Tags of ViT-B-32: openai, "),
        ("open_clip:ViT-B-32", "must be followed by ARCH/TAG or ARCH/CHECKPOINT; got `ViT-B-32`"),
        ("timm:resnet1O", "Did you mean `resnet1"),
        ("timm:", "must be a known one; got `timm:`"),
    ],
)
def test_a_wrong_name_is_met_with_near_ones(name, message):
    with pytest.raises(InputError, match=message):
        open_encoder(name)


VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SQUARE = {"image_size": 32, "patch_size": 8}


def transformers_models():
    vision = VISION | SQUARE
    text = VISION | {"vocab_size": 32}
    configs = {
        "vit": transformers.ViTConfig(**vision),
        "dinov2": transformers.Dinov2Config(**vision),
        "clip": transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24),
        "siglip": transformers.SiglipConfig(vision_config=vision, text_config=text),
        "convnext": transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 32]),
    }
    processors = {
        "vit": transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
        "dinov2": transformers.BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
        "clip": transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        "siglip": transformers.SiglipImageProcessor(size={"height": 32, "width": 32}),
        "convnext": transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    }
    for kind, config in configs.items():
        torch.manual_seed(0)
        yield kind, transformers.AutoModel.from_config(config), processors[kind]


def library_features(kind, model, processor):
    """What the library's own pipeline gives for the batch."""
    inputs = processor(images=images(), return_tensors="pt")
    with torch.inference_mode():
        if kind in ("clip", "siglip"):
            features = model.eval().get_image_features(**inputs)
            return features if isinstance(features, torch.Tensor) else features.pooler_output
        return model.eval()(**inputs).pooler_output.flatten(1)


@pytest.mark.parametrize(("kind", "model", "processor"), transformers_models())
def test_transformers_vision_features_are_those_of_its_own_pipeline(kind, model, processor, tmp_path):
    expected = library_features(kind, model, processor)
    encoder = from_transformers_vision(model, processor, name=kind)
    torch.testing.assert_close(encode(encoder, images()), expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    named = open_encoder(f"transformers:{tmp_path}")
    assert torch.equal(encode(named, images()), encode(encoder, images()))
    assert named.parts["weights"] == encoder.parts["weights"]
    larger = open_encoder(f"transformers:{tmp_path}", image_size=64)
    assert larger.prepare(images()[0]).shape == (3, 64, 64)
    assert encode(larger, images()).shape == expected.shape


def test_a_pooler_that_the_checkpoint_lacks_is_not_made_up(tmp_path):
    config = transformers.ViTConfig(**VISION, **SQUARE)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    first, second = (open_encoder(f"transformers:{tmp_path}") for _ in range(2))
    assert fingerprints(first, second) == 1
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval().vit
    pixels = torch.stack([first.prepare(image) for image in images()])
    with torch.inference_mode():
        torch.testing.assert_close(encode(first, images()), model(pixels).last_hidden_state[:, 0])


def test_other_missing_weights_are_refused(tmp_path):
    model = transformers.ViTModel(transformers.ViTConfig(**VISION, **SQUARE))
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "layernorm.weight"}
    model.save_pretrained(tmp_path, state_dict=weights)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"lacks 1, the first is layernorm\.weight"):
        open_encoder(f"transformers:{tmp_path}")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=f"the weights of `transformers:{tmp_path}` could not be loaded"):
        open_encoder(f"transformers:{tmp_path}")


def test_a_wrong_precision_is_refused():
    with pytest.raises(InputError, match="must be one of auto, float32, bfloat16, float16; got float64"):
        open_encoder("glyphs", precision="float64")


def shared(*parts):
    root = Path(os.environ.get("DIFFIDENT_SHARED", Path(__file__).parents[2].parent / "shared"))
    path = root.joinpath(*parts)
    return path if path.exists() else pytest.skip(f"needs {path}; set DIFFIDENT_SHARED to the folder of shared data")


@pytest.mark.data
def test_mobilenet_from_a_local_folder_tells_cifar10_classes_apart():
    name = f"timm:local-dir:{shared('encoders', 'mobilenetv2_100.imagenet1k')}"
    dataset = open_dataset(str(shared("data", "cifar10", "test.parquet")), limit=200)
    features = extract(dataset, open_encoder(name, image_size=128))
    values, labels = features.values, features.labels
    assert values.shape == (200, 1280)
    means = torch.stack([values[:100][labels[:100] == k].mean(dim=0) for k in range(10)])
    accuracy = (torch.cdist(values[100:], means).argmin(dim=1) == labels[100:]).float().mean()
    assert accuracy > 0.5


@pytest.mark.slow
def test_the_fingerprint_is_the_same_in_every_process(tiny_clip):
    code = f"import open_clip\nopen_clip.add_model_config({str(Path(tiny_clip[1].split('/', 1)[1]).parent)!r})\n"
    code += f"from diffident.encoders import open_encoder\nprint(open_encoder({tiny_clip[1]!r}).fingerprint)"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(diffident.__file__).parents[1])},
            capture_output=True,
        )
        for seed in "12"
    ]
    assert {run.stdout.decode().strip() for run in runs} == {open_encoder(tiny_clip[1]).fingerprint}
