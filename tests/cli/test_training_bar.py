import io
import pickle

from rich.console import Console

from diffident.cli.common import TrainingBar
from diffident.training import Progress


def test_the_bar_shows_epoch_loss_and_rates(monkeypatch):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=140)
    monkeypatch.setattr("diffident.cli.common.Console", lambda stderr: console)
    bar = pickle.loads(pickle.dumps(TrainingBar()))
    bar(Progress(2, 3, 5, 10, 0.51234, 0.001, 1234.6))
    bar(Progress(3, 3, 10, 10, 0.4, 0.0, 1300.0, epoch_done=True, finished=True))
    bar.stop()
    assert "epoch 2/3  loss 0.5123  rate 1.0e-03  1,235 samples/s" in shown.getvalue()
    assert "30/30" in shown.getvalue()
