import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffident.cli.score import _label_features
from diffident.encoders.label_text import encode_label_names, encode_prompts, text_features
from diffident.errors import InputError
from diffident.storage.label_features import read_label_features, write_label_features


def test_label_features_come_back_from_file_and_folder(tmp_path):
    texts = torch.randn(3, 4)
    assert write_label_features(texts, tmp_path).name == "label_features.safetensors"
    assert read_label_features(tmp_path).equal(texts)
    assert read_label_features(write_label_features(texts, tmp_path / "mine.safetensors")).equal(texts)
    np.savez(tmp_path / "mine.npz", label_features=texts.numpy(), ids=np.arange(3))
    assert read_label_features(tmp_path / "mine.npz").equal(texts)


def test_wrong_label_features_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"which is not there\. Name one with --label-features FILE"):
        read_label_features(tmp_path)
    np.savez(tmp_path / "other.npz", texts=np.ones((2, 2)))
    with pytest.raises(InputError, match="it holds texts in"):
        read_label_features(tmp_path / "other.npz")
    np.savez(tmp_path / "flat.npz", label_features=np.ones(2))
    with pytest.raises(InputError, match=r"must be floats \[K, d\]; got \[2\]"):
        read_label_features(tmp_path / "flat.npz")
    for name in ("broken.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match=r"must be a readable \.npz"):
            read_label_features(tmp_path / name)


class Letters(nn.Module):
    """Text features that count letters."""

    def forward(self, tokens):
        return torch.stack([(tokens == ord(letter)).sum(dim=1).float() for letter in "abc"], dim=1)


def letters(prompts):
    width = max(map(len, prompts))
    return torch.tensor([[ord(letter) for letter in prompt.ljust(width)] for prompt in prompts])


def test_prompts_are_averaged_as_unit_vectors():
    seen = []

    def tokenize(prompts):
        seen.extend(prompts)
        return letters(prompts)

    names, templates = ["a_b", "cc"], ["{}", "aa {}"]
    found = encode_prompts(Letters(), tokenize, lambda model, x: model(x), names, templates=templates, device="cpu")
    assert seen == ["a b", "aa a b", "cc", "aa cc"]
    one = np.array([1, 1, 0]) / 2**0.5 + np.array([3, 1, 0]) / 10**0.5
    other = np.array([0, 0, 1]) + np.array([1, 0, 1]) / 2**0.5
    expected = [one / np.linalg.norm(one), other / np.linalg.norm(other)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_many_classes_go_in_batches():
    sizes = []

    def forward(model, tokens):
        sizes.append(len(tokens))
        return model(tokens)

    found = encode_prompts(Letters(), letters, forward, ["a"] * 150, device="cpu")
    assert sizes == [64, 64, 22]
    assert found.shape == (150, 3)


def test_text_tower_of_an_open_clip_folder_and_its_names(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    parts = {
        "embed_dim": 8,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    model, folder = open_clip.model.CLIP(**parts), tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": parts, "preprocess_cfg": {}}))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    encoder = f"open_clip:local-dir:{folder}"
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat.", "a photo of a dog."])
    with torch.no_grad():
        expected = nn.functional.normalize(model.eval().encode_text(tokens), dim=1)
    torch.testing.assert_close(encode_label_names(encoder, ["cat", "dog"], device="cpu"), expected)

    def found(*names):
        return _label_features(SimpleNamespace(path=tmp_path, encoder=encoder, label_names=names), None)

    torch.testing.assert_close(found("cat", "dog"), expected)
    assert read_label_features(tmp_path).equal(found("cat", "dog"))
    torch.testing.assert_close(found("dog", "cat"), expected.flip(0))  # kept ones are of the names in another order
    write_label_features(torch.ones(2, 8), tmp_path)  # one's own, which say no names
    assert found("dog", "cat").equal(torch.ones(2, 8))
    save_file(
        {"label_features": torch.zeros(2, 8)}, tmp_path / "label_features.safetensors", {"label_names": "dog, cat"}
    )
    assert found("dog", "cat").equal(torch.zeros(2, 8))  # names in another's way of writing them
    write_label_features(torch.ones(2, 8), tmp_path, ["dog", "cat"])
    assert _label_features(SimpleNamespace(path=tmp_path, encoder=encoder, label_names=None), None).sum() == 16


def test_text_tower_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **sizes,
        "vocab_size": 200,
        "max_position_embeddings": 30,
        "eos_token_id": 199,
        "bos_token_id": 198,
        "pad_token_id": 0,
    }
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    model = transformers.CLIPModel(config)

    def tokenize(prompts):
        ids = torch.cat([letters(prompts), torch.full((len(prompts), 1), 199)], dim=1)  # the end is what CLIP reads
        return transformers.BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    found = encode_prompts(model, tokenize, text_features, ["cat", "dog"], device="cpu")
    assert found.shape == (2, 8)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert not torch.allclose(found[0], found[1])


def test_wrong_encoders_names_and_templates_are_refused():
    with pytest.raises(InputError, match=r"must be made by an image-text encoder; got `open_clop:x`\. Did you mean"):
        encode_label_names("open_clop:x", ["a"])
    with pytest.raises(InputError, match="must be followed by ARCH/TAG or ARCH/CHECKPOINT; got `ViT-B-32`"):
        encode_label_names("open_clip:ViT-B-32", ["a"])
    for templates, got in (((), "none"), (("a photo",), "'a photo'")):
        with pytest.raises(InputError, match=f"`templates` must each have one {{}}; got {got}"):
            encode_prompts(Letters(), letters, text_features, ["a"], templates=templates)
    with pytest.raises(InputError, match="`label_names` must name at least one class"):
        encode_prompts(Letters(), letters, text_features, [])
