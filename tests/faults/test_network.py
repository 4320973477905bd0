"""Nothing is fetched that was not asked for: the whole path runs while every attempt to reach a network is recorded."""

import socket

import pytest

from tests.interop.models import save, theirs


@pytest.fixture
def attempts(monkeypatch):
    """Every address that was looked up or connected to, each of which fails."""
    found = []

    def refuse(*address, **_):
        found.append(address)
        raise OSError("there is no network in this test")

    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    connect = socket.socket.connect

    def guarded(self, address):
        return connect(self, address) if self.family == socket.AF_UNIX else refuse(address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded)
    return found


def test_the_attempts_are_recorded(attempts):
    import urllib.request

    with pytest.raises(OSError, match="no network"):
        urllib.request.urlopen("http://example.org")
    assert attempts


def test_no_verb_reaches_for_a_network(igpt, digits_run, tmp_path, attempts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    save(theirs("deep"), tmp_path / "theirs")
    ckpt, run = "runs/mini/checkpoints/last.ckpt", "runs/mini"
    cpu = ["--accelerator", "cpu"]
    for words in (
        ["palette", "--data", "Digits", "--colors", 17, "--out", "p.npy"],
        ["fit", "--config", digits_run.config, "--trainer.max_steps", 4],
        ["validate", "--config", digits_run.config, "--ckpt_path", ckpt],
        ["test", "--config", digits_run.config, "--ckpt_path", ckpt],
        ["predict", "--config", digits_run.config, "--ckpt_path", ckpt],
        ["probe", "--ckpt", ckpt, "--method", "knn", "--layers", 1, *cpu],
        ["sample", "--ckpt", ckpt, "--num", 1, "--out", "s.png", *cpu],
        ["surprise", "s.png", "--ckpt", ckpt, "--out", "surprise.png", *cpu],
        ["import", "--path", "theirs", "--out", "x.ckpt", "--data", "Digits"],
        ["export", "--ckpt", ckpt, "--out", "e"],
        ["report", run, "--out", "r.html"],
    ):
        code, _, err = igpt(*words)
        assert code == 0, (words, err)
    assert attempts == []


@pytest.mark.parametrize("name", ["https://example.org/x.yaml", "s3://bucket/x.yaml", "hf://someone/x.yaml"])
def test_an_address_for_a_file_is_no_file(refused, attempts, name):
    refused("fit", "--config", name, words=["--config"])
    refused("sample", "--ckpt", name, "--out", "s.png", words=["does not exist"])
    refused("import", "--path", name, "--out", "x.ckpt", words=["--path"])
    assert attempts == []


def test_data_that_are_not_there_are_fetched_only_where_that_is_allowed(refused, attempts, tmp_path):
    options = ["--data", "CIFAR10", "--data.root", "nowhere", "--out", "p.npy"]
    refused("palette", *options, "--data.download", "false", words=["download is false"])
    assert attempts == []
    refused("palette", *options, words=["cannot be downloaded"])
    assert attempts != []
