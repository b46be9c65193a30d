import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffident.losses import DifficultyAwareLoss, EntropyBonus

pytest.importorskip("triton", reason="Triton is not installed")


def test_kernels_interpreted_on_the_cpu():
    # Triton looks at the variable when it is imported, so it takes a process of its own; without types checked, as
    # kernels that are wrapped for that do not find each other.
    tests = str(Path(__file__).parents[1] / "triton_interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", tests]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "c"), [(256, 10), (64, 1000), (16, 32000)])
def test_on_a_gpu_it_is_what_the_cpu_computes(n, c, dtype):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(n, c, generator=generator).mul(3).to(dtype)
    labels, weights = torch.arange(n) % c, 2 * torch.rand(n, generator=generator)
    there = logits.cuda().requires_grad_()
    for criterion in (DifficultyAwareLoss(), EntropyBonus()):
        loss = criterion(there, labels.cuda(), weights.cuda())
        expected = criterion(logits.float(), labels, weights)
        torch.testing.assert_close(loss.cpu(), expected, rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(loss, there)
        leaf = logits.float().requires_grad_()
        (wanted,) = torch.autograd.grad(criterion(leaf, labels, weights), leaf)
        torch.testing.assert_close(gradient.cpu(), wanted.to(dtype), rtol=2e-2, atol=1e-5)


@pytest.mark.gpu
def test_on_a_gpu_bad_weights_and_labels_make_it_nan():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    logits = torch.zeros(2, 3, device="cuda", requires_grad=True)
    labels, weights = torch.tensor([0, 3], device="cuda"), torch.tensor([2.5, 0.5], device="cuda")
    assert DifficultyAwareLoss(reduction="none")(logits, labels, weights).isnan().all()
