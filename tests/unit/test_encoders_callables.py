import enum
import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import nn

import diffident
from diffident.data import open_dataset
from diffident.encoders import open_encoder
from diffident.encoders.callables import CallableEncoder
from diffident.encoders.digests import digest_callable
from diffident.errors import InputError
from diffident.extraction import extract

SCALE = 2.0


def scaled(batch, factor=1.0, *, offset=0.0):
    return np.stack(batch) * factor + offset


def by_global(batch):
    return scaled(batch, SCALE)


class Scaler:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, batch):
        return scaled(batch, self.factor)

    def method(self, batch):
        return self(batch)


class Network(nn.Module):
    def __init__(self, power=1):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.power = nn.Linear(2, 3), power

    def forward(self, batch):
        return self.linear(batch) ** self.power


class Mode(enum.Enum):
    FAST = 1
    EXACT = 2


def of_library(kind, *arguments, seed=0, **options):
    torch.manual_seed(seed)
    return kind(*arguments, **options)


def closing_over(value):
    return lambda batch: scaled(batch, value)


def nudged(network):
    with torch.no_grad():
        network.linear.weight[0, 0] += 1e-3
    return network


def decorated(factor):
    @torch.inference_mode()
    def inner(batch):
        return scaled(batch, factor)

    return inner


DIFFERENT = [
    (functools.partial(scaled, factor=2.0), functools.partial(scaled, factor=3.0)),
    (functools.partial(scaled, offset=2.0), functools.partial(functools.partial(scaled), offset=3.0)),
    (closing_over(2.0), closing_over(3.0)),
    (closing_over(np.zeros(2)), closing_over(np.ones(2))),
    (closing_over({"a": [1, {2}]}), closing_over({"a": [1, {3}]})),
    (closing_over(Mode.FAST), closing_over(Mode.EXACT)),
    (closing_over(scaled), closing_over(by_global)),
    (lambda batch: batch, lambda batch: batch[::-1]),
    (Scaler(2.0), Scaler(3.0)),
    (Scaler(2.0).method, Scaler(3.0).method),
    (Network(), nudged(Network())),
    (Network(1), Network(2)),
    (closing_over(Network()), closing_over(nudged(Network()))),
    (of_library(nn.Linear, 2, 3), of_library(nn.Linear, 2, 3, seed=1)),
    (of_library(nn.Conv2d, 2, 3, 2, stride=1), of_library(nn.Conv2d, 2, 3, 2, stride=2)),
    (of_library(nn.TransformerEncoderLayer, 4, 1, 8), of_library(nn.TransformerEncoderLayer, 4, 2, 8)),
    (of_library(nn.TransformerEncoderLayer, 4, 1, 8), of_library(nn.TransformerEncoderLayer, 4, 1, 8, norm_first=True)),
    (PCA(1).fit(np.eye(2)).transform, PCA(1).fit(2 * np.eye(2)).transform),
    (decorated(2.0), decorated(3.0)),
    (functools.lru_cache(closing_over(2.0)), functools.lru_cache(closing_over(3.0))),
]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_what_computes_something_else_has_another_fingerprint(first, second):
    assert CallableEncoder(first, name="f").fingerprint != CallableEncoder(second, name="f").fingerprint


@pytest.mark.parametrize(
    "make",
    [
        lambda: functools.partial(scaled, factor=2.0),
        lambda: closing_over({"a": np.zeros(2), "b": {1, 2}}),
        lambda: Scaler(2.0),
        Network,
        lambda: of_library(nn.Linear, 2, 3),
        lambda: nn.Sequential(nn.Flatten(), of_library(nn.Linear, 2, 3)),
        lambda: PCA(1).fit(np.eye(2)).transform,
        lambda: decorated(2.0),
    ],
)
def test_the_same_made_again_has_the_same_fingerprint(make):
    assert CallableEncoder(make()).fingerprint == CallableEncoder(make()).fingerprint


def test_a_global_value_counts(monkeypatch):
    before = CallableEncoder(by_global).fingerprint
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert CallableEncoder(by_global).fingerprint != before


def test_comments_do_not_count():
    source = "def encode(batch):\n    return batch\n"
    spaces = []
    for text in (source, "# why\n\n" + source.replace("    ", "  # how\n  ")):
        space = {"__name__": "mine"}
        exec(text, space)
        spaces.append(space["encode"])
    assert CallableEncoder(spaces[0]).fingerprint == CallableEncoder(spaces[1]).fingerprint


def test_functions_that_call_each_other_are_described():
    def even(batch):
        return batch if not len(batch) else odd(batch[1:])

    def odd(batch):
        return even(batch[1:])

    assert len(CallableEncoder(even).fingerprint) == 64


def test_a_network_takes_vectors_in_evaluation_mode_and_is_left_as_it_was():
    network = nn.Sequential(nn.Dropout(0.5), of_library(nn.Linear, 2, 3), nn.BatchNorm1d(3).eval())
    vectors = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    found = CallableEncoder(network).encode(list(vectors))
    assert [module.training for module in network] == [True, True, False]
    with torch.no_grad():
        torch.testing.assert_close(found, network.eval()(torch.from_numpy(vectors)))


def test_the_mode_of_a_network_counts_only_where_it_acts():
    for network in (Network(), nn.Sequential(nn.Dropout(0.5), of_library(nn.Linear, 2, 3))):
        training, method = CallableEncoder(network).fingerprint, CallableEncoder(network.forward).fingerprint
        assert CallableEncoder(network.eval()).fingerprint == training
        assert CallableEncoder(network.forward).fingerprint != method


def test_a_network_of_another_width_or_type_is_told_so():
    vectors = [np.zeros(6, dtype=">f8"), np.ones(6)]
    assert CallableEncoder(nn.Linear(6, 4).bfloat16()).encode(vectors).shape == (2, 4)
    words = "`encoder` must take vectors [6]; the network python:torch.nn.modules.linear:Linear does not: "
    with pytest.raises(InputError, match=f"^{re.escape(words)}.* Mend its first layer"):
        CallableEncoder(nn.Linear(5, 4)).encode(vectors)


def test_a_network_without_weights_takes_vectors():
    assert CallableEncoder(nn.ReLU()).encode([np.array([-1.0, 2.0], dtype=np.float32)]).tolist() == [[0, 2]]


def test_a_library_method_takes_the_list():
    fitted = PCA(1).fit(np.eye(2))
    found = CallableEncoder(fitted.transform).encode([np.ones(2), np.zeros(2)])
    np.testing.assert_allclose(found, fitted.transform([np.ones(2), np.zeros(2)]), atol=1e-6)


def test_a_network_that_takes_no_images_is_told_how_they_come():
    words = "`encoder` must take a list of Image; the network python:torch.nn.modules.linear:Linear does not: "
    with pytest.raises(InputError, match=re.escape(words)):
        CallableEncoder(nn.Linear(2, 3)).encode([Image.new("L", (2, 2))])


def test_what_has_no_digest_is_refused_by_name():
    lock = threading.Lock()

    def guarded(batch):
        with lock:
            return scaled(batch)

    with pytest.raises(InputError, match=r"got <class '_thread.lock'> at `lock` of .*guarded\. Set the function's"):
        CallableEncoder(guarded)
    assert len(CallableEncoder(guarded, fingerprint="1").fingerprint) == 64
    guarded.fingerprint = "1"
    assert CallableEncoder(guarded).fingerprint == CallableEncoder(guarded, fingerprint="1").fingerprint
    guarded.fingerprint = "2"
    assert CallableEncoder(guarded).fingerprint != CallableEncoder(guarded, fingerprint="1").fingerprint


def test_the_fingerprint_is_the_same_in_every_process(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import functools, numpy as np\nNAMES = {'a', 'b', 'c'}\nWEIGHTS = np.arange(3.0)\n"
        "class Encoder:\n    factor = 2\n    def __call__(self, batch):\n        return [x in {'x', 'y', 'z'} "
        "for x in batch if x in NAMES] + list(WEIGHTS)\nencode = functools.partial(Encoder())\n"
    )
    code = "from diffident.encoders.callables import open_python; print(open_python('mine:encode').fingerprint)"
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(diffident.__file__).parents[1])}
    other = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, cwd=tmp_path, capture_output=True, check=True
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert other.stdout.decode().strip() == open_encoder("python:mine:encode").fingerprint


@pytest.mark.parametrize("values", [lambda batch: ["a"] * len(batch), lambda batch: [[1], [1, 2]]])
def test_what_is_no_array_is_refused(values):
    with pytest.raises(InputError, match=r"must give an array or tensor \[n, d\] of numbers; f gave list"):
        CallableEncoder(values, name="f").encode([0, 1])


def test_gradients_do_not_matter():
    linear = nn.Linear(2, 3)
    encoder = CallableEncoder(lambda batch: linear(torch.stack(batch)))
    assert encoder.encode([torch.zeros(2)] * 4).shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:nowhere", "must be followed by module:function; got `nowhere`"),
        ("python:no_such_module:encode", "must be importable; No module named 'no_such_module'"),
        ("python:math:encode", "has no attribute 'encode'"),
        ("python:math:pi", "must be callable; got float"),
        ("glyph", "Did you mean `glyphs`"),
    ],
)
def test_a_wrong_name_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        open_encoder(name)


def test_what_is_no_encoder_is_refused():
    unchecked = inspect.unwrap(open_encoder)  # tests check types before the function runs
    with pytest.raises(InputError, match="`encoder` must be a name, an Encoder or a callable; got int"):
        unchecked(5)


def test_glyphs_and_identity_describe_themselves():
    digits = open_dataset("digits", limit=20)
    assert extract(digits, "identity").values.shape == (20, 64)
    first, rough = open_encoder("glyphs", device="cpu"), open_encoder("glyphs", device="cpu", precision="bfloat16")
    assert first.parts.keys() == {"weights", "preprocessing", "precision"}
    assert first.fingerprint != rough.fingerprint
    exact = extract(digits, first).values
    assert torch.equal(exact, extract(digits, first, batch_size=20).values)
    torch.testing.assert_close(exact, extract(digits, first, batch_size=3).values, rtol=1e-4, atol=1e-4)
    assert 0 < (extract(digits, rough).values - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("start", ["import helpers_made\n", "from helpers_made import deeper\n", ""])
def test_modules_of_ones_own_count_by_their_source(start, tmp_path, monkeypatch):
    inside = "" if start else "    import helpers_made\n"
    name = "deeper.pre" if "deeper" in start else "helpers_made.pre"
    (tmp_path / "encoder_made.py").write_text(f"{start}def encode(batch):\n{inside}    return {name}(batch)\n")
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for scale in (1.0, 1.0, 9.0):
        (tmp_path / "deeper_made.py").write_text(f"SCALE = {scale}\ndef pre(batch):\n    return batch\n")
        (tmp_path / "helpers_made.py").write_text("import deeper_made as deeper\npre = deeper.pre\n")
        for module in ("encoder_made", "helpers_made", "deeper_made"):
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        digests.append(digest_callable(importlib.import_module("encoder_made").encode))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("spec", ["identity", "python:math:sqrt"])
def test_a_wrong_device_or_precision_is_refused_where_none_is_used(spec):
    for wrong in ({"device": "gpu"}, {"precision": "int8"}):
        with pytest.raises(InputError, match=f"`{next(iter(wrong))}` must be"):
            open_encoder(spec, **wrong)
