import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import diffident
from diffident.errors import InputError
from diffident.integrations.lightning import RecordDynamics
from diffident.storage.dynamics import read_dynamics

COUNT = 30


class Module(lightning.LightningModule):
    def __init__(self, whole=True):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.whole = whole
        self.margins = {}

    def training_step(self, batch, batch_idx):
        inputs, labels, ids = batch
        logits = self.linear(inputs)
        others = logits.detach().scatter(1, labels[:, None], -torch.inf).amax(1)
        margins = logits.detach().gather(1, labels[:, None])[:, 0] - others
        self.margins.update({(self.current_epoch, name): m for name, m in zip(ids, margins.tolist(), strict=True)})
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "labels": labels, "ids": ids} if self.whole else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def fit(folder, module, epochs=2):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(COUNT, 4), torch.arange(COUNT) % 3)
    loader = DataLoader(diffident.with_ids(data, [f"s{row:02d}" for row in range(COUNT)]), batch_size=8, shuffle=True)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[RecordDynamics(folder)], enable_model_summary=False, **quiet
    )
    trainer.fit(module, loader)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
def test_every_epoch_is_written_by_id(tmp_path):
    module = Module()
    fit(tmp_path, module)
    seen = read_dynamics(tmp_path)
    assert seen.ids.tolist() == [f"s{row:02d}" for row in range(COUNT)]
    assert (seen.labels == np.arange(COUNT) % 3).all()
    expected = [[module.margins[epoch, name] for epoch in (0, 1)] for name in seen.ids]
    np.testing.assert_allclose(seen.margins, expected, rtol=1e-6)
    fit(tmp_path, Module(), epochs=1)
    assert read_dynamics(tmp_path).margins.shape == (COUNT, 1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_what_the_step_must_return_is_named(tmp_path):
    with pytest.raises(InputError, match="must return logits, labels, ids; logits, labels, ids missing"):
        fit(tmp_path, Module(whole=False))


def test_samples_of_all_processes_are_joined_and_padding_counts_once(tmp_path, monkeypatch):
    def gathered(part, world_size):
        ids, labels, columns = part
        return [part, (["other", ids[0]], labels[:2], {name: column[:2] for name, column in columns.items()})]

    monkeypatch.setattr("diffident.integrations.lightning._gathered", gathered)
    callback, trainer = RecordDynamics(tmp_path), type("T", (), {"world_size": 2, "is_global_zero": True})()
    trainer.current_epoch = 0
    callback.on_train_epoch_start(trainer, None)
    step = {"logits": torch.eye(3), "labels": torch.arange(3), "ids": ["a", "b", "c"]}
    callback.on_train_batch_end(trainer, None, step, None, 0)
    callback.on_train_epoch_end(trainer, None)
    assert read_dynamics(tmp_path).ids.tolist() == ["a", "b", "c", "other"]
