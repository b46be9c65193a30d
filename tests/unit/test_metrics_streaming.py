import pytest
import torch

from diffident.errors import InputError, ShapeError
from diffident.evaluation import evaluate
from diffident.metrics.streaming import MetricAccumulator


def sample(n=70, c=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, c, generator=generator) * 3, torch.randint(c, (n,), generator=generator)


def one_shot(logits, labels):
    return {name: estimate.value for name, estimate in evaluate(logits, labels, num_resamples=0).metrics.items()}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_uneven_batches_give_the_values_of_one_shot(num_classes):
    logits, labels = sample(c=num_classes)
    accumulator = MetricAccumulator()
    for rows in (slice(0, 1), slice(1, 40), slice(40, 40 + 29), slice(69, 70)):
        accumulator.update(logits[rows], labels[rows])
    computed = accumulator.compute()
    assert list(computed) == list(one_shot(logits, labels))
    assert computed == pytest.approx(one_shot(logits, labels), abs=1e-12)
    assert len(accumulator) == 70


def test_merged_shards_in_any_order_and_one_of_them_empty():
    logits, labels = sample()
    first, second = MetricAccumulator(), MetricAccumulator()
    first.update(logits[50:], labels[50:])
    second.update(probs=logits[:50].double().softmax(1), labels=labels[:50])
    first.merge(MetricAccumulator())
    first.merge(second)
    assert first.compute() == pytest.approx(one_shot(logits, labels), abs=1e-9)
    assert len(second) == 50


def test_reset_forgets_and_computing_does_not():
    logits, labels = sample()
    accumulator = MetricAccumulator()
    accumulator.update(logits[:20], labels[:20])
    accumulator.compute()
    accumulator.update(logits[20:], labels[20:])
    assert accumulator.compute() == pytest.approx(one_shot(logits, labels), abs=1e-12)
    accumulator.reset()
    accumulator.update(logits[:2], labels[:2])
    assert accumulator.compute() == pytest.approx(one_shot(logits[:2], labels[:2]), nan_ok=True)


def test_wrong_input():
    accumulator = MetricAccumulator()
    with pytest.raises(InputError, match="`compute` must follow at least one sample"):
        accumulator.compute()
    with pytest.raises(InputError, match=r"`update` must get `labels` and either .*; got `logits`"):
        accumulator.update(torch.zeros(1, 2))
    accumulator.update(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(ShapeError, match="`logits` must have 2 columns like those before; got 3"):
        accumulator.update(torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(InputError, match="`logits` must be logits; got rows"):
        accumulator.update(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
    with pytest.raises(InputError, match="Did you mean `nll`"):
        MetricAccumulator(["nlll"])
    with pytest.raises(InputError, match="`other` must have the metrics None; got"):
        accumulator.merge(MetricAccumulator(["nll"]))
    with pytest.raises(InputError, match="for 3 classes; got `ece_positive`, which is for two"):
        MetricAccumulator(["ece_positive"]).update(torch.zeros(1, 3), torch.tensor([0]))


@pytest.mark.parametrize(
    "metrics", [["aurc", "nll"], ["brier", "ece"], ["classwise_ece"], ["ece_positive", "accuracy"]]
)
@pytest.mark.parametrize("probs", [False, True])
def test_some_metrics_have_the_values_of_all(metrics, probs):
    logits, labels = sample(c=2)
    accumulator = MetricAccumulator(metrics)
    for rows in (slice(0, 30), slice(30, 70)):
        values = logits[rows].double().softmax(1) if probs else logits[rows]
        accumulator.update(**{"probs" if probs else "logits": values}, labels=labels[rows])
    expected = one_shot(logits, labels)
    assert accumulator.compute() == pytest.approx({name: expected[name] for name in metrics}, abs=1e-9)
