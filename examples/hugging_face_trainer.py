"""The `Trainer` of transformers with two lines more: `add_weights` on the training data, `TrainerLoss` as the loss."""

import tempfile
from pathlib import Path

import datasets
import numpy as np
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

import diffident
from diffident.integrations.hugging_face import TrainerLoss, add_weights


def main(folder: Path, epochs: int = 8) -> dict[str, float]:
    """Train a small vision transformer on handwritten digits; loss and accuracy on the test data."""
    train, test = (diffident.open_dataset(f"digits:{split}") for split in ("train", "test"))
    features = diffident.extract(train, "glyphs")
    difficulty = diffident.score_features(
        lambda: iter([features.values]), features.ids, features.labels.numpy(), method="posterior"
    )

    set_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        num_labels=10,
    )
    trainer = Trainer(
        ViTForImageClassification(config),
        TrainingArguments(
            str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=50,
            learning_rate=3e-3,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=add_weights(columns(train), difficulty),  # one
        eval_dataset=columns(test),
        compute_loss_func=TrainerLoss(),  # two
        compute_metrics=accuracy,
    )
    trainer.train()
    return trainer.evaluate()


def columns(dataset) -> datasets.Dataset:
    """The 8 x 8 images as a Hugging Face data set."""
    values = [np.asarray(image, dtype=np.float32)[None] / 128 - 1 for image in dataset]
    return datasets.Dataset.from_dict({"id": dataset.ids, "pixel_values": values, "label": dataset.labels})


def accuracy(predictions) -> dict[str, float]:
    """Share of right predictions."""
    return {"accuracy": float((predictions.predictions.argmax(1) == predictions.label_ids).mean())}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(main(Path(temporary)))
