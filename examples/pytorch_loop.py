"""A plain PyTorch loop with two lines more: `with_weights` around the data, `DifficultyAwareLoss` as the criterion."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import diffident


def main(epochs: int = 15) -> float:
    """Train on handwritten digits; the test accuracy."""
    train, test = (diffident.open_dataset(f"digits:{split}") for split in ("train", "test"))
    features = diffident.extract(train, "glyphs")
    difficulty = diffident.score_features(
        lambda: iter([features.values]), features.ids, features.labels.numpy(), method="posterior"
    )

    torch.manual_seed(0)
    dataset = TensorDataset(pixels(train), torch.from_numpy(train.labels))
    dataset = diffident.with_weights(dataset, difficulty, ids=train.ids)  # one
    criterion = diffident.DifficultyAwareLoss()  # two
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for inputs, labels, weights in DataLoader(dataset, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            criterion(model(inputs), labels, weights).backward()
            optimizer.step()

    with torch.no_grad():
        evaluation = diffident.evaluate(model(pixels(test)), torch.from_numpy(test.labels))
    print({name: round(evaluation.metrics[name].value, 4) for name in ("accuracy", "nll", "ece")})
    return evaluation.metrics["accuracy"].value


def pixels(dataset) -> torch.Tensor:
    """The 8 x 8 images as vectors in [0, 1]."""
    return torch.stack([torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) for image in dataset]) / 255


if __name__ == "__main__":
    main()
