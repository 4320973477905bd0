"""Checkpoints that are none, are cut short, or were written to do harm, to every verb that reads one."""

import io
import os
import pickle
import zipfile

import pytest
import torch

from igpt.checkpoints.format import CHECKPOINT_KEY, read_checkpoint
from tests.faults.conftest import Payload

READERS = {  # verb: its options, in which CKPT stands for the checkpoint
    "probe": ["--ckpt", "CKPT", "--out", "p"],
    "sample": ["--ckpt", "CKPT", "--out", "s.png"],
    "surprise": ["picture.png", "--ckpt", "CKPT", "--out", "s.png"],
    "export": ["--ckpt", "CKPT", "--out", "e"],
    "test": ["--config", "CONFIG", "--ckpt_path", "CKPT"],
    "fit": ["--config", "CONFIG", "--model.init_args.start_from", "CKPT"],
    "fit Joint": [
        *("--config", "CONFIG", "--model", "igpt.modules.Joint", "--model.num_classes", "10"),
        *("--model.pretrained", "CKPT"),
    ],
}


@pytest.fixture
def read_by(refused, digits_run):
    """A verb refuses the file and names it."""

    def check(verb, path="bad.ckpt", words=()):
        given = {"CKPT": path, "CONFIG": digits_run.config}
        options = [given.get(option, option) for option in READERS[verb]]
        verb = verb.partition(" ")[0]
        refused(verb, *options, *([] if verb == "export" else cpu(verb)), words=[path, *words])

    return check


def cpu(verb):
    return ["--trainer.accelerator" if verb in ("test", "fit") else "--accelerator", "cpu"]


def torch_saved(content, **options):
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def zip_of(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("UP", ".."), content)
    return stream.getvalue()


FOREIGN = {
    "empty": b"",
    "text": b"hello",
    "HTML": b"<!DOCTYPE html><html>404</html>",
    "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "zeros": bytes(100_000),
    "a number": torch_saved(3),
    "a list": torch_saved([1, 2]),
    "a tensor": torch_saved(torch.zeros(3)),
    "weights alone": torch_saved({"weight": torch.zeros(2)}),
    "weights of another program": torch_saved({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}),
    "the format before PyTorch 1.6": torch_saved({"a": 1}, _use_new_zipfile_serialization=False),
    "a ZIP of nothing": b"PK\x05\x06" + bytes(18),
    "a ZIP of another program": zip_of(a="b"),
    "a ZIP with a member outside": zip_of(UP__evil="x", archive__data__pkl=b"\x80\x02}."),
    "a ZIP without tensors": zip_of(archive__data_pkl=b"\x80\x02N.", archive__version="3"),
    "safetensors": (2).to_bytes(8, "little") + b"{}",
    "NumPy": b"\x93NUMPY\x01\0" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_program(read_by, tmp_path, name):
    (tmp_path / "bad.ckpt").write_bytes(FOREIGN[name])
    read_by("sample")


@pytest.mark.parametrize("verb", READERS)
def test_every_verb_refuses_what_is_no_checkpoint(read_by, tmp_path, verb):
    (tmp_path / "bad.ckpt").write_bytes(FOREIGN["text"])
    read_by(verb)


@pytest.mark.parametrize("tenth", range(10))
def test_a_checkpoint_cut_short(read_by, digits_run, tmp_path, tenth):
    whole = digits_run.checkpoint.read_bytes()
    (tmp_path / "bad.ckpt").write_bytes(whole[: len(whole) * tenth // 10])
    read_by("sample")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.999])
def test_a_checkpoint_with_zeros_in_the_middle_is_read_as_it_is_or_refused(igpt, digits_run, tmp_path, share):
    whole = bytearray(digits_run.checkpoint.read_bytes())
    start = int(len(whole) * share)
    whole[start : start + 512] = bytes(len(whole[start : start + 512]))
    (tmp_path / "bad.ckpt").write_bytes(whole)
    code, _, err = igpt("sample", "--ckpt", tmp_path / "bad.ckpt", "--num", 1, "--out", tmp_path / "s.png")
    assert code in (0, 2), err
    assert (tmp_path / "s.png").exists() == (code == 0)


@pytest.mark.parametrize("place", ["folder", "loop", "/dev/null", "pipe"])
def test_a_checkpoint_that_is_no_file(read_by, tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for verb in ("sample", "test"):
        read_by(verb, place)


def evil_zip(mark):
    """What `torch.save` would write, with a payload in its pickle."""
    return zip_of(archive__data__pkl=pickle.dumps(Payload(mark)), archive__version="3\n").replace(
        b"data/pkl", b"data.pkl"
    )


EVIL = {
    "a pickle": lambda mark: pickle.dumps(Payload(mark)),
    "a pickle of the first protocol": lambda mark: pickle.dumps(Payload(mark), protocol=0),
    "within the header": lambda mark: torch_saved({"state_dict": {}, CHECKPOINT_KEY: Payload(mark)}),
    "among the weights": lambda mark: torch_saved({"state_dict": {"w": Payload(mark)}, CHECKPOINT_KEY: {}}),
    "a ZIP": evil_zip,
    "the format before PyTorch 1.6": lambda mark: torch_saved(
        {"a": Payload(mark)}, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize(
    ("verb", "name"),
    [("sample", name) for name in EVIL] + [(verb, "among the weights") for verb in READERS if verb != "sample"],
)
def test_code_in_a_checkpoint_is_never_executed(read_by, tmp_path, mark, verb, name):
    (tmp_path / "bad.ckpt").write_bytes(EVIL[name](mark))
    read_by(verb)


def test_the_payload_would_leave_its_mark(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def put(content, path, value):
    *folders, last = path.split("/")
    for folder in folders:
        content = content[folder]
    if value is None:
        del content[last]
    else:
        content[last] = value


ARGS, CONFIG = "igpt/model/init_args", "igpt/model/init_args/transformer"
CHANGES = {  # a part of a good checkpoint, and what stands in its place; None takes it out
    "the header is a list": ("igpt", [1]),
    "the header is empty": ("igpt", {}),
    "the header is a word": ("igpt", "model"),
    "the model is a word": ("igpt/model", "Autoregressive"),
    "no class": ("igpt/model/class_path", None),
    "no arguments": (ARGS, None),
    "arguments in a list": (ARGS, [1, 2]),
    "arguments of another class": (ARGS, {"a": 1}),
    "a class that is a number": ("igpt/model/class_path", 3),
    "a class from outside": ("igpt/model/class_path", "subprocess.Popen"),
    "a class of the standard library by way of igpt": ("igpt/model/class_path", "igpt.system.files.os.system"),
    "a program": ("igpt/model/class_path", "igpt.__main__.main"),
    "a module that is not there": ("igpt/model/class_path", "igpt.evil.Model"),
    "a function": ("igpt/model/class_path", "igpt.modules.loading.load"),
    "a class of another kind": ("igpt/model/class_path", "igpt.palette.Palette"),
    "the base class": ("igpt/model/class_path", "igpt.modules.base.PixelModule"),
    "a billion layers": (f"{CONFIG}/n_layers", 10**9),
    "a layer of a terabyte": (f"{CONFIG}/d_model", 2**20),
    "a billion positions": (f"{CONFIG}/n_positions", 10**9),
    "a trillion colours": (f"{CONFIG}/vocab_size", 10**12),
    "layers below zero": (f"{CONFIG}/n_layers", -1),
    "half a layer": (f"{CONFIG}/n_layers", 2.5),
    "layers in words": (f"{CONFIG}/n_layers", "three"),
    "no heads": (f"{CONFIG}/n_heads", 0),
    "heads that do not divide": (f"{CONFIG}/n_heads", 5),
    "an unknown size": (f"{CONFIG}/depth", 3),
    "a network that is a list": (CONFIG, [3, 32]),
    "a learning rate in words": (f"{ARGS}/learning_rate", "fast"),
    "an order that does not exist": (f"{ARGS}/order", "zigzag"),
    "weights in a list": ("state_dict", [1]),
    "weights that are words": ("state_dict", {"transformer.wpe": "w"}),
    "no weights": ("state_dict", {}),
    "a tensor too few": ("state_dict/transformer.wpe", None),
    "a tensor too many": ("state_dict/more", torch.zeros(1)),
    "a tensor of another shape": ("state_dict/transformer.wpe", torch.zeros(63, 32)),
    "a tensor that is sparse": ("state_dict/transformer.wpe", torch.zeros(64, 32).to_sparse()),
    "colours out of range": ("state_dict/palette.colors", torch.full((17, 3), 9.0)),
    "colours that are NaN": ("state_dict/palette.colors", torch.full((17, 3), torch.nan)),
    "an order out of range": ("state_dict/pixel_order", torch.full((64,), 10**6)),
    "an order with a pixel twice": ("state_dict/pixel_order", torch.zeros(64, dtype=torch.int64)),
}


@pytest.fixture
def changed(digits_run, tmp_path):
    def write(part, value):
        content = read_checkpoint(digits_run.checkpoint)
        put(content, part, value)
        torch.save(content, tmp_path / "bad.ckpt")

    return write


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_of_a_checkpoint_that_is_off(read_by, changed, name):
    changed(*CHANGES[name])
    read_by("sample")


def test_a_flipped_bit_is_found_where_no_checksum_stands_beside_the_file(read_by, digits_run, tmp_path):
    whole = bytearray(digits_run.checkpoint.read_bytes())
    with zipfile.ZipFile(digits_run.checkpoint) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    whole[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    (tmp_path / "bad.ckpt").write_bytes(whole)
    for verb in ("sample", "export"):
        read_by(verb, words=["damaged"])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("verb", ["sample", "probe", "surprise", "export", "test", "fit", "fit Joint"])
def test_a_network_that_diverged_is_said_before_the_work(read_by, changed, verb, value):
    broken = torch.zeros(64, 32)
    broken[5, 3] = value
    changed("state_dict/transformer.wpe", broken)
    read_by(verb, words=["not finite (in transformer.wpe)"])


@pytest.mark.parametrize("name", ["the header is a list", "no arguments"])
@pytest.mark.parametrize("verb", ["probe", "surprise", "export", "test", "fit"])
def test_a_header_that_is_off(read_by, changed, verb, name):
    changed(*CHANGES[name])
    read_by(verb)


@pytest.mark.parametrize("name", ["no weights", "a tensor too few", "weights that are words", "weights in a list"])
@pytest.mark.parametrize("verb", ["export", "fit"])
def test_weights_that_are_off(read_by, changed, verb, name):
    changed(*CHANGES[name])
    read_by(verb)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ([1], "list"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", "executed"]}}, "subprocess.Popen"),
        ({"class_path": "igpt_datamodules.Digits", "init_args": {"colour": 3}}, "Digits"),
        ({"class_path": "igpt_datamodules.Digits", "init_args": {"batch_size": -1}}, "batch_size"),
        ({"class_path": "igpt_datamodules.__main__.Digits"}, "__main__"),
        ({"class_path": 5}, "5"),
        ({}, "''"),
    ],
)
def test_data_of_a_checkpoint_that_are_off(refused, changed, data, word):
    changed("igpt/data", data)
    refused("probe", "--ckpt", "bad.ckpt", "--out", "p", "--accelerator", "cpu", words=[word])


@pytest.mark.parametrize("step", ["many", float("inf"), float("nan"), [1], None])
def test_a_step_that_is_no_number_is_none(igpt, changed, tmp_path, step):
    changed("global_step", step)
    code, _, err = igpt("sample", "--ckpt", tmp_path / "bad.ckpt", "--num", 1, "--out", tmp_path / "s.png")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("generative", [None, 3, {}, {"class_path": "subprocess.Popen", "init_args": {}}])
def test_a_joint_model_that_holds_none(read_by, changed, generative):
    changed(
        "igpt/model", {"class_path": "igpt.modules.Joint", "init_args": {"num_classes": 3, "generative": generative}}
    )
    for verb in ("sample", "export"):
        read_by(verb)


@pytest.mark.parametrize("name", ["the header is a list", "a tensor too few", "a class from outside"])
def test_a_checkpoint_that_is_off_to_fine_tune(refused, digits_run, changed, name):
    changed(*CHANGES[name])
    model = "{class_path: igpt.modules.Joint, init_args: {num_classes: 10, pretrained: bad.ckpt}}"
    trainer = "{max_steps: 2, accelerator: cpu}"
    refused("fit", "--model", model, "--data", "Digits", "--trainer", trainer, words=["bad.ckpt"])
