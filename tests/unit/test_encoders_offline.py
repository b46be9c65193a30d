import logging
import socket
import time

import pytest
from huggingface_hub import constants

from diffident.cli import main
from diffident.encoders import open_encoder
from diffident.encoders.common import loading
from diffident.errors import MissingDependencyError, UnavailableError

TEXTS = "text,label\na b,x\nc d,y\n"
NAMES = [
    "timm:resnet10t",
    "open_clip:ViT-B-32/openai",
    "transformers:google/vit-base-patch16-224",
    "transformers:google-bert/bert-base-uncased",
    "sentence-transformers:all-MiniLM-L6-v2",
]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No name is resolved and no cache is filled; the number of attempts."""
    attempts = []

    def refuse(*address, **options):
        attempts.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return attempts


@pytest.mark.parametrize("name", NAMES)
def test_weights_out_of_reach_are_one_line_and_soon(name, no_network, capsys, tmp_path):
    (tmp_path / "t.csv").write_text(TEXTS)
    data = "digits" if name.startswith(("timm", "open_clip", "transformers:google/vit")) else str(tmp_path / "t.csv")
    started = time.monotonic()
    assert main(["extract", data, "--encoder", name, "--out", str(tmp_path / "f")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"diffident: error: the weights of `{name}` could not be loaded: ")
    assert error.endswith("Check the name. Without network, set HF_HOME to a filled cache or name a local folder.\n")
    # The client's own retries alone take 23 s; importing the library is counted here.
    assert time.monotonic() - started < 20
    assert len(no_network) == 1
    assert not constants.HF_HUB_OFFLINE
    assert not (tmp_path / "f").exists()


def test_offline_mode_asks_nobody(no_network, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnavailableError, match="could not be loaded"):
        open_encoder(NAMES[0])
    assert not no_network
    assert constants.HF_HUB_OFFLINE


def test_a_local_folder_asks_nobody(no_network, tmp_path):
    with loading(f"transformers:{tmp_path}"), pytest.raises(OSError, match="Name or service"):
        socket.create_connection(("host", 1))
    assert len(no_network) == 1


def test_a_missing_library_is_named():
    message = r"`x:y` must have another library: No module named 'piece'\. Install it\."
    with pytest.raises(MissingDependencyError, match=message), loading("x:y"):
        raise ModuleNotFoundError("No module named 'piece'")


def test_logging_is_as_before(caplog):
    with loading("x:y"):
        logging.getLogger("z").error("quiet")
    logging.getLogger("z").error("loud")
    assert [record.message for record in caplog.records] == ["loud"]


def test_a_long_reason_is_cut():
    with pytest.raises(UnavailableError, match=r"loaded: x{240}\.\.\. Check"), loading("x:y"):
        raise RuntimeError("x" * 1000 + "\nmore")
