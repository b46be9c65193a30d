import pytest
import torch
from torch import distributed, multiprocessing

torchmetrics = pytest.importorskip("torchmetrics")

from diffident.errors import InputError, ShapeError  # noqa: E402
from diffident.evaluation import evaluate  # noqa: E402
from diffident.integrations.torchmetrics import EvaluationMetric  # noqa: E402


def sample(n=50, c=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, c, generator=generator) * 3, torch.randint(c, (n,), generator=generator)


def one_shot(logits, labels):
    return {name: estimate.value for name, estimate in evaluate(logits, labels, num_resamples=0).metrics.items()}


def numbers(computed):
    return {name: value.item() for name, value in computed.items()}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_batches_reset_and_probabilities(num_classes):
    logits, labels = sample(c=num_classes)
    for probs in (False, True):
        metric = EvaluationMetric(num_classes, probs=probs)
        values = logits.double().softmax(1) if probs else logits
        metric.update(values[:7], labels[:7])
        metric.reset()
        for rows in (slice(0, 20), slice(20, 50)):
            metric.update(values[rows], labels[rows])
        assert numbers(metric.compute()) == pytest.approx(one_shot(logits, labels), abs=1e-9)


def test_in_a_collection_and_per_batch():
    logits, labels = sample()
    metrics = torchmetrics.MetricCollection([EvaluationMetric(3)])
    batch = metrics(logits[:20], labels[:20])
    assert batch["accuracy"] == one_shot(logits[:20], labels[:20])["accuracy"]
    metrics(logits[20:], labels[20:])
    assert metrics.compute()["ece"].item() == pytest.approx(one_shot(logits, labels)["ece"])


def test_wrong_input():
    with pytest.raises(ShapeError, match="`preds` must have 3 columns; got 2"):
        EvaluationMetric(3).update(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(InputError, match="probs=True"):
        EvaluationMetric(2).update(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))


def gathered(rank, store, queue):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    logits, labels = sample()
    metric = EvaluationMetric(3)
    rows = (slice(0, 37), slice(37, 50), None)[rank]
    if rows is not None:
        metric.update(logits[rows], labels[rows])
    queue.put(numbers(metric.compute()))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_uneven_and_empty_shards_of_three_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [context.Process(target=gathered, args=(rank, tmp_path / "store", queue)) for rank in range(3)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    for one in found:
        assert one == pytest.approx(one_shot(*sample()), abs=1e-12)
