"""Lightning: a `LightningModule` with weights in its batches, and a callback that keeps the training dynamics."""

import tempfile
from pathlib import Path

import lightning
import torch
from pytorch_loop import pixels
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import diffident
from diffident.integrations.lightning import RecordDynamics


class Classifier(lightning.LightningModule):
    """A small network on 64 numbers."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.criterion = diffident.DifficultyAwareLoss()

    def training_step(self, batch, batch_idx):
        """The difficulty-aware loss, and what the callback asks for."""
        inputs, labels, ids, weights = batch
        logits = self.network(inputs)
        return {"loss": self.criterion(logits, labels, weights), "logits": logits, "labels": labels, "ids": ids}

    def validation_step(self, batch, batch_idx):
        """Negative log-likelihood and accuracy."""
        inputs, labels = batch
        logits = self.network(inputs)
        self.log("nll", functional.cross_entropy(logits, labels))
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(folder: Path, epochs: int = 10) -> float:
    """Train on handwritten digits; the test accuracy."""
    train, test = (diffident.open_dataset(f"digits:{split}") for split in ("train", "test"))
    features = diffident.extract(train, "glyphs")
    difficulty = diffident.score_features(
        lambda: iter([features.values]), features.ids, features.labels.numpy(), method="posterior"
    )

    lightning.seed_everything(0, verbose=False)
    dataset = diffident.with_ids(TensorDataset(pixels(train), torch.from_numpy(train.labels)), train.ids)
    loader = DataLoader(diffident.with_weights(dataset, difficulty), batch_size=64, shuffle=True)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[RecordDynamics(folder)],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    held_out = DataLoader(TensorDataset(pixels(test), torch.from_numpy(test.labels)), batch_size=600)
    trainer.fit(Classifier(), loader, held_out)
    return float(trainer.callback_metrics["accuracy"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
