import os
import re
import subprocess
import sys

import pytest
import torch

from diffident.devices import keep_freed_memory, resolve_device
from diffident.encoders import open_encoder
from diffident.errors import InputError
from diffident.settings import load_settings
from diffident.training.inference import make_fabric


def only(monkeypatch, *names):
    """These accelerators are here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)


@pytest.mark.parametrize(
    ("here", "chosen", "for_training"),
    [((), "cpu", "cpu"), (("mps",), "mps", "cpu"), (("cuda",), "cuda", "cuda"), (("cuda", "mps"), "cuda", "cuda")],
)
def test_auto_is_the_first_accelerator_that_is_here(here, chosen, for_training, monkeypatch):
    only(monkeypatch, *here)
    assert resolve_device("auto") == torch.device(chosen)
    assert resolve_device("auto", accelerators=("cuda",)) == torch.device(for_training)


def test_training_takes_mps_by_name_alone(monkeypatch):
    only(monkeypatch, "mps")
    assert make_fabric(load_settings(model="mlp")).device == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "xla"])
def test_a_device_that_is_not_here_is_refused(device):
    message = f"`device` must be auto, cpu or an accelerator that is here; got {device} ("
    for use in (resolve_device, lambda name: open_encoder("glyphs", device=name)):
        with pytest.raises(InputError, match=re.escape(message)):
            use(device)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="MPS is here")
def test_training_on_a_device_that_is_not_here_is_refused():
    with pytest.raises(InputError, match=r"an accelerator that is here; got mps \([^.]+(\.\w[^.]+)?\)\. Use auto\.$"):
        make_fabric(load_settings(model="mlp", device="mps"))


FAULTS = """
import resource
import numpy as np
from diffident.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [np.ones(5 << 18) for _ in range(10)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
kept = keep_freed_memory()
faults()
print(int(kept), given_back, faults())
"""


def test_freed_memory_is_kept():
    said = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    environment = {name: value for name, value in os.environ.items() if name not in said}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    kept, before, after = (int(number) for number in done.stdout.split())
    if not kept:
        pytest.skip("needs glibc")
    assert after < 0.1 * before


def test_memory_is_left_alone_where_the_environment_says_how(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not keep_freed_memory()
