"""Every sample meets its own weight, whatever shuffles, splits, pads or collates it."""

from dataclasses import replace

import datasets as hugging_face
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

import diffident
from diffident.data.dataset import Dataset
from diffident.difficulties.weights import difficulty_weights
from diffident.errors import IdMismatchError, InputError, ShapeError
from diffident.records import DifficultyTable

COUNT = 50


def table(prefix="a", count=COUNT, labels=None):
    """Difficulties in another order than the data's, and of more samples than it has."""
    order = np.random.default_rng(0).permutation(count + 5)
    ids = np.array([f"{prefix}{row}" for row in order], dtype=object)
    labels = np.zeros(len(ids), dtype=np.int64) if labels is None else labels
    return DifficultyTable(ids, labels, order * 1.0, order / len(ids), labels, order * 0.0)


def numbered(count=COUNT):
    """Sample i is the number i."""
    return TensorDataset(torch.arange(count), torch.zeros(count, dtype=torch.int64))


def ids_of(count=COUNT, prefix="a"):
    return [f"{prefix}{row}" for row in range(count)]


def weight_of(numbers, count=COUNT):
    """What the weight of sample i is: its difficulty is i."""
    return difficulty_weights(torch.arange(count, dtype=torch.float64))[numbers]


def test_everything_is_shuffled_and_every_weight_finds_its_sample():
    data = diffident.with_weights(numbered(), table(), ids=ids_of())
    train, rest = random_split(data, [40, 10], generator=torch.Generator().manual_seed(1))
    train = ConcatDataset([Subset(train, list(range(39, -1, -2))), rest, Subset(train, list(range(0, 40, 2)))])
    seen = []
    for rank in range(3):  # 50 samples for three processes: one is padded
        sampler = DistributedSampler(train, num_replicas=3, rank=rank, shuffle=True, seed=7)
        sampler.set_epoch(3)
        for numbers, _, weights in DataLoader(train, batch_size=4, sampler=sampler, num_workers=2):
            assert weights.dtype == torch.float32
            assert torch.equal(weights, weight_of(numbers))
            seen += numbers.tolist()
    assert len(seen) == 51
    assert set(seen) == set(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_samplers_with_replacement(workers):
    data = diffident.with_weights(numbered(), table(), ids=ids_of())
    sampler = WeightedRandomSampler(torch.rand(COUNT).tolist(), 200, generator=torch.Generator().manual_seed(0))
    for numbers, _, weights in DataLoader(data, batch_size=16, sampler=sampler, num_workers=workers):
        assert torch.equal(weights, weight_of(numbers))


def test_ids_and_weights_of_what_was_split_before():
    data = diffident.with_ids(numbered(), ids_of())
    parts = random_split(data, [0.5, 0.5], generator=torch.Generator().manual_seed(0))
    joined = diffident.with_weights(ConcatDataset(list(reversed(parts))), table())
    for numbers, _, ids, weights in DataLoader(joined, batch_size=8, shuffle=True):
        assert list(ids) == [f"a{number}" for number in numbers.tolist()]
        assert torch.equal(weights, weight_of(numbers))


def test_samples_are_left_out_where_the_table_says_so_and_that_is_wanted():
    left_out = diffident.with_weights(numbered(), doubted(), ids=ids_of()).values
    assert left_out.eq(2).nonzero().flatten().tolist() == [3, 7]
    kept = diffident.with_weights(numbered(), doubted(), ids=ids_of(), distrust=False).values
    assert torch.equal(kept, weight_of(torch.arange(COUNT)))


def doubted():
    """The table, which believes the labels 0 of samples 3 and 7 not, and finds 1 likely; sample 1 has that label."""
    scored = table()
    labels = (scored.ids == "a1").astype(np.int64)
    distrust = np.isin(scored.ids, ["a3", "a7"]) * 0.9
    return replace(scored, labels=labels, distrust=distrust, likely_labels=np.ones(len(scored), dtype=np.int64))


def labelled(label=lambda number: int(number == 1)):
    """Sample i is the number i and its label."""
    return [(torch.tensor(number), label(number)) for number in range(COUNT)]


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_get_their_likely_label_where_theirs_is_not_believed_and_that_is_wanted(workers):
    data = diffident.with_weights(labelled(), doubted(), ids=ids_of(), relabel=True)
    for numbers, labels, weights in DataLoader(data, batch_size=16, shuffle=True, num_workers=workers):
        wrong = (numbers == 3) | (numbers == 7)
        assert torch.equal(labels, (wrong | (numbers == 1)).long())
        assert (weights[wrong] == 1).all()
        assert weights.max() <= 1
    assert data.labels is not None
    assert data.labels.nonzero()[0].tolist() == [1, 3, 7]
    with_ids = diffident.with_ids(Subset(data, [7]))
    assert with_ids[0][1:] == (1, torch.tensor(1.0), "a7")


def test_an_oversampled_sample_is_relabelled_wherever_it_occurs():
    data = diffident.with_ids(labelled(), ids_of())
    twice = diffident.with_weights(Subset(data, [*range(COUNT), 3, 2, 3]), doubted(), relabel=True)
    assert [twice[place][1] for place in (1, 2, 3, 50, 51, 52)] == [1, 0, 1, 1, 0, 1]
    assert [float(twice[place][-1]) for place in (3, 50, 52)] == [1, 1, 1]


@pytest.mark.parametrize("key", ["label", "labels", "label_ids"])
def test_labels_of_dictionaries_are_found(key):
    rows = hugging_face.Dataset.from_dict({"id": ids_of(), key: [int(number == 1) for number in range(COUNT)]})
    data = diffident.with_weights(rows, doubted(), relabel=True)
    assert [data[place][key] for place in (1, 2, 3, -43)] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    "kind",
    [int, np.int32, np.array, lambda label: np.array([label]), torch.tensor, lambda label: torch.tensor([label])],
)
def test_a_changed_label_is_as_the_sample_s_own_was(kind):
    data = diffident.with_weights(
        labelled(lambda number: kind(int(number == 1))), doubted(), ids=ids_of(), relabel=True
    )
    for place in (2, 3):
        found, expected = data[place][1], kind(int(place == 3))
        assert type(found) is type(expected)
        assert found == expected
        assert getattr(found, "shape", None) == getattr(expected, "shape", None)
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)


@pytest.mark.parametrize(
    ("sample", "got"),
    [
        ((1, 5), "must be second and the one that was scored; got 5 instead of 0 at 3. Score it again on these labels"),
        ((1, False), "must be second and the one that was scored; got False instead of 0 at 3."),
        ((1, "cat"), "must be second and the one that was scored; got 'cat' instead of 0 at 3."),
        ((1, None), "must be second and the one that was scored; got None instead of 0 at 3."),
        ((1, torch.tensor(False)), "must be second and the one that was scored; got tensor"),
        ((1, torch.tensor(0.0, dtype=torch.bfloat16)), "must be second and the one that was scored; got tensor"),
        ((1, [0]), "must be second and the one that was scored; got \\[0\\] instead of 0 at 3."),
        ((1, torch.tensor(0.0)), "must be second and the one that was scored; got tensor"),
        ((1, torch.tensor([1, 0])), "must be second and the one that was scored; got tensor"),
        ({"label": 5}, "must be `label` and the one that was scored; got 5 instead of 0 at 3."),
        ((1,), "must be in every sample to be changed; got a tuple without one. Make the samples pairs"),
        ({"target": 0}, "must be in every sample to be changed; got a dict without one."),
    ],
)
def test_a_label_that_is_not_where_it_should_be_is_refused_at_once(sample, got):
    with pytest.raises(InputError, match=f"^`label` (of every sample )?{got}"):
        diffident.with_weights([sample] * COUNT, doubted(), ids=ids_of(), relabel=True)


def test_an_oversampled_sample_counts_once():
    data = diffident.with_ids(numbered(), ids_of())
    twice = diffident.with_weights(Subset(data, [*range(COUNT), 3, 3, 3]), table())
    assert torch.equal(twice.values, weight_of(torch.tensor([*range(COUNT), 3, 3, 3])))
    again = diffident.with_weights(Subset(twice, [52, 0]), table())
    assert [float(weight) for weight in again.values] == [1.0, pytest.approx(np.exp(-1 / 0.7))]


def test_a_mean_over_several_samples_has_the_mean_of_their_weights():
    data = diffident.with_weights(numbered(), table(), ids=ids_of())
    numbers, _, weights = next(iter(DataLoader(data, batch_size=COUNT, shuffle=True)))
    partner, share = torch.randperm(COUNT), 0.3
    mixed = share * weights + (1 - share) * weights[partner]
    assert torch.equal(mixed, share * weight_of(numbers) + (1 - share) * weight_of(numbers[partner]))
    # Linear in the weight: the bonus of a mixed batch is that of the mixed weights.
    logits, labels, criterion = torch.randn(COUNT, 3), torch.zeros(COUNT).long(), diffident.DifficultyAwareLoss(0.4)
    parts = share * criterion(logits, labels, weights) + (1 - share) * criterion(logits, labels, weights[partner])
    torch.testing.assert_close(criterion(logits, labels, mixed), parts)


def test_dictionaries_get_a_key():
    rows = hugging_face.Dataset.from_dict({"id": ids_of(), "text": [str(n) for n in range(COUNT)]})
    for batch in DataLoader(diffident.with_weights(rows, table()), batch_size=8, shuffle=True):
        assert torch.equal(batch["weight"], weight_of(torch.tensor(list(map(int, batch["text"])))))
    with pytest.raises(InputError, match="`id` must be new to the samples"):
        diffident.with_ids(rows)[0]


def test_single_values_become_pairs():
    assert diffident.with_ids(["x", "y"], ids=[1, 2])[1] == ("y", "2")


def test_images_in_class_folders_are_known_by_their_paths(tmp_path):
    for number in range(6):
        folder = tmp_path / ("even", "odd")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.new("L", (2, 2), number).save(folder / f"{9 - number}.png")
    ours = diffident.open_dataset(tmp_path)
    hard = np.array([float(np.asarray(image).max()) for image in ours])
    scored = DifficultyTable(ours.ids, ours.labels, hard, hard, ours.labels, hard * 0)
    theirs = ImageFolder(str(tmp_path), transform=lambda image: int(pil_to_tensor(image).max()))
    for number, label, weight in diffident.with_weights(theirs, scored):
        assert label == number % 2
        assert weight == weight_of(number, 6)
    for image, label, weight in diffident.with_weights(ours, scored):
        number = int(np.asarray(image).max())
        assert (label, weight) == (number % 2, weight_of(number, 6))
    wrong = replace(scored, labels=1 - scored.labels)
    for data in (ours, theirs, Subset(theirs, [1, 0])):
        with pytest.raises(InputError, match="must be scored on the labels of"):
            diffident.with_weights(data, wrong)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves image files open
def test_the_reader_of_timm(tmp_path):
    from timm.data import create_dataset, create_loader

    (tmp_path / "one").mkdir()
    for number in range(8):
        Image.new("RGB", (4, 4), (number * 10,) * 3).save(tmp_path / "one" / f"{number}.png")
    (tmp_path / "one" / "3.png").write_bytes(b"broken: timm takes 4.png in its place")
    hard = np.arange(8.0)
    ids = np.array([f"one/{number}.png" for number in range(8)], dtype=object)
    scored = DifficultyTable(ids, np.zeros(8, dtype=np.int64), hard, hard, hard.astype(np.int64), hard)
    data = create_dataset("", root=str(tmp_path))
    data.reader = diffident.with_weights(data.reader, scored, ids=data.filenames())
    data.additional_features = ("weight",)
    quiet = {"mean": (0,) * 3, "std": (1,) * 3, "persistent_workers": False, "num_workers": 0}
    loader = create_loader(data, (3, 4, 4), 3, no_aug=True, is_training=True, use_prefetcher=False, **quiet)
    seen = [(image, weight) for images, _, weights in loader for image, weight in zip(images, weights, strict=True)]
    assert len(seen) >= 6  # timm drops the last, smaller batch
    for image, weight in seen:
        assert weight == weight_of(round(float(image.mean()) * 255 / 10), 8)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_what_cannot_be_joined_is_refused():
    data = diffident.with_ids(numbered(), ids_of())
    with pytest.raises(IdMismatchError, match=r"`ids` of a ConcatDataset must be unique; 10 occur more than once"):
        diffident.with_weights(ConcatDataset([data, diffident.with_ids(numbered(10), ids_of(10))]), table())
    with pytest.raises(IdMismatchError, match=r"must be unique; 1 occur more than once: first 'x'"):
        diffident.with_ids(numbered(3), ["x", "y", "x"])
    twice = Dataset("toy", "text", np.array(["x", "x"], dtype=object), None, "ab".__getitem__, "f")
    with pytest.raises(IdMismatchError, match="`ids` of toy must be unique"):
        diffident.with_ids(twice)
    with pytest.raises(ShapeError, match="one entry per sample; got 2 for 3"):
        diffident.with_ids(numbered(3), ["x", "y"])
    with pytest.raises(InputError, match=r"`ids` must be given .*; got a TensorDataset\. Pass ids="):
        diffident.with_weights(ConcatDataset([data, numbered()]), table())
    with pytest.raises(IdMismatchError, match="1 of 1 ids of a TensorDataset are not in the difficulty table"):
        diffident.with_weights(numbered(1), table(), ids=["b0"])
    for stream in (Stream(), iter([1])):
        with pytest.raises(InputError, match="must have a length and positions"):
            diffident.with_ids(stream, ["x"])
