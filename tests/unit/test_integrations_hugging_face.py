from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from diffident.difficulties.weights import difficulty_weights
from diffident.errors import IdMismatchError, InputError
from diffident.integrations.hugging_face import TrainerLoss, add_weights, pack_weights, unpack_weights
from diffident.losses import DifficultyAwareLoss
from diffident.records import DifficultyTable
from diffident.training.by_id import with_weights

COUNT = 24


class Net(nn.Module):
    """Logits of three classes; the first entry of `numbers` says which sample it is."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.seen = []

    def forward(self, numbers, labels=None):
        self.seen += numbers[:, 0].tolist()
        return {"logits": self.linear(numbers / 24)}


def rows():
    generator = np.random.default_rng(0)
    return datasets.Dataset.from_dict(
        {
            "id": [f"s{row}" for row in range(COUNT)],
            "numbers": [[float(row), float(generator.normal())] for row in range(COUNT)],
            "label": [row % 3 for row in range(COUNT)],
            "text": ["dropped"] * COUNT,
        }
    )


def table():
    order = np.random.default_rng(1).permutation(COUNT)
    ids = np.array([f"s{row}" for row in order], dtype=object)
    return DifficultyTable(ids, order % 3, order * 1.0, order * 1.0, order % 3, order * 0.0)


def trainer(folder, loss, **options):
    torch.manual_seed(0)
    settings = {"num_train_epochs": 1, "learning_rate": 0.1, "optim": "sgd", "lr_scheduler_type": "constant"}
    arguments = TrainingArguments(
        str(folder), report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, max_grad_norm=0, **settings,
        **options,
    )  # fmt: skip
    data = add_weights(rows().shuffle(seed=3), table())
    return Trainer(Net(), arguments, train_dataset=data, eval_dataset=rows(), compute_loss_func=loss)


def test_a_label_carries_its_weight_exactly():
    labels = torch.tensor([0, 3, 8_388_607])
    weights = torch.tensor([1.0, 0.1, torch.finfo(torch.float32).tiny])
    classes, back = unpack_weights(pack_weights(labels, weights))
    assert classes.tolist() == labels.tolist()
    assert torch.equal(back, weights)
    assert unpack_weights(labels)[1] is None
    with pytest.raises(InputError, match="got both in one batch"):
        unpack_weights(torch.cat([labels, pack_weights(labels, weights)]))
    with pytest.raises(InputError, match="got -100 at row 1"):
        pack_weights(torch.tensor([0, -100]), torch.ones(2))


def test_a_label_that_is_not_believed_is_packed_as_the_likely_one():
    scored = table()
    doubted = replace(scored, distrust=np.isin(scored.ids, ["s4", "s9"]) * 0.9, likely_labels=(scored.labels + 1) % 3)
    packed = torch.tensor(add_weights(rows(), doubted, relabel=True)["label"])
    classes, weights = unpack_weights(packed)
    own = torch.arange(COUNT) % 3
    wrong = torch.isin(torch.arange(COUNT), torch.tensor([4, 9]))
    assert torch.equal(classes, torch.where(wrong, (own + 1) % 3, own))
    assert weights is not None
    assert weights[wrong].tolist() == [1, 1]
    left_out = unpack_weights(torch.tensor(add_weights(rows(), doubted)["label"]))
    assert torch.equal(left_out[0], own)
    assert left_out[1] is not None
    assert left_out[1][wrong].tolist() == [2, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_weight_reaches_its_sample_through_shuffling_pruning_and_collation(workers, tmp_path):
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        classes, weights = unpack_weights(labels)
        if weights is not None:
            seen.extend(zip(classes.tolist(), weights.tolist(), strict=True))
        return outputs["logits"].mean()

    train = trainer(tmp_path, loss, per_device_train_batch_size=5, dataloader_num_workers=workers)
    train.train()
    numbers = [int(number) for number in train.model.seen]
    assert sorted(numbers) == list(range(COUNT)) != numbers
    expected = difficulty_weights(torch.arange(COUNT, dtype=torch.float64))
    assert seen == [(number % 3, float(expected[number])) for number in numbers]


def test_accumulated_batches_count_as_one_step(tmp_path):
    for name, size, steps in (("one", 24, 1), ("many", 5, 5)):
        train = trainer(
            tmp_path, TrainerLoss(alpha=0.5), per_device_train_batch_size=size, gradient_accumulation_steps=steps
        )
        train.train()
        weight = train.model.linear.weight.detach()
        if name == "one":
            expected = weight
    torch.testing.assert_close(weight, expected)
    torch.manual_seed(0)
    model = Net()
    numbers = torch.tensor(rows()["numbers"])
    loss = DifficultyAwareLoss(0.5)(
        model(numbers)["logits"], torch.arange(COUNT) % 3, difficulty_weights(torch.arange(COUNT, dtype=torch.float64))
    )
    loss.backward()
    torch.testing.assert_close(expected, model.linear.weight.detach() - 0.1 * model.linear.weight.grad)


def test_evaluation_is_the_negative_log_likelihood(tmp_path):
    train = trainer(tmp_path, TrainerLoss(alpha=0.5), per_device_eval_batch_size=COUNT)
    with torch.no_grad():
        logits = train.model(torch.tensor(rows()["numbers"]))["logits"]
    expected = float(nn.functional.cross_entropy(logits, torch.arange(COUNT) % 3))
    assert train.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"`id_column` must be a column .* got 'identity'"):
        add_weights(rows(), table(), id_column="identity")
    with pytest.raises(InputError, match="must be scored on the labels of the data set; 24 of 24 differ"):
        add_weights(rows().map(lambda row: {"label": (row["label"] + 1) % 3}), table())
    with pytest.raises(IdMismatchError, match="1 of 25 ids of the data set are not in the difficulty table"):
        add_weights(datasets.concatenate_datasets([rows(), rows().select([0]).map(lambda _: {"id": "t"})]), table())
    with pytest.raises(InputError, match="must have weights; got plain labels"):
        TrainerLoss()({"logits": torch.zeros(2, 3)}, torch.tensor([0, 1]))
    assert float(TrainerLoss("entropy", alpha=0.0)((torch.zeros(2, 4),), torch.tensor([0, 1]))) == pytest.approx(
        1.3863, abs=1e-4
    )


@pytest.mark.parametrize(
    ("loss", "wants"),
    [("mixup", "mixes samples"), ("regmixup", "mixes samples"), ("crl", "needs the history of every")],
)
def test_losses_that_want_more_than_outputs_and_labels_are_refused(loss, wants):
    wrong = (
        rf"^`loss` must work on outputs and labels alone; got '{loss}', which {wants}.* or take one of cross-entropy, "
    )
    with pytest.raises(InputError, match=wrong) as refused:
        TrainerLoss(loss, alpha=0.2)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("poly, mbls, logit-norm, mmce, soft-ece.")


def test_ids_of_a_formatted_data_set_are_numbers_and_labels_are_compared():
    plain = rows().remove_columns("id").add_column("id", list(range(COUNT)))
    scored = table()
    scored = replace(scored, ids=np.array([one[1:] for one in scored.ids], dtype=object))
    expected = add_weights(plain, scored)["label"]
    assert add_weights(plain.with_format("torch"), scored).with_format(None)["label"] == expected
    assert with_weights(plain.with_format("torch"), scored).ids.tolist() == [str(row) for row in range(COUNT)]
    shifted = replace(scored, labels=(scored.labels + 1) % 3)
    for join in (add_weights, with_weights):
        with pytest.raises(InputError, match="24 of 24 differ"):
            join(plain, shifted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.to_iterable_dataset(), "`dataset` must be one split, with a length; got IterableDataset"),
        (lambda data: datasets.DatasetDict(train=data), "`dataset` must be one split, with a length; got DatasetDict"),
        (
            lambda data: data.remove_columns("label").add_column("label", ["a"] * COUNT),
            "`label` must hold class numbers",
        ),
    ],
)
def test_what_has_no_class_numbers_by_row_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        add_weights(change(rows()), table())
