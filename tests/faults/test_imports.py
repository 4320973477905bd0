"""Released weights that are broken or hostile: Hugging Face folders and TensorFlow checkpoints."""

import json
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
import torch

from tests.faults.conftest import Payload
from tests.interop import bundles
from tests.interop.models import save, theirs

SHARD = "c.data-00000-of-00001"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save(theirs("one head"), tmp_path_factory.mktemp("theirs") / "theirs")


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def import_it(refused):
    def check(path="theirs", words=("theirs",)):
        refused("import", "--path", path, "--out", "sub/x.ckpt", words=words)

    return check


def headed(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def one(**entry):
    return headed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}, bytes(8))


SAFETENSORS = {
    "empty": b"",
    "seven bytes": bytes(7),
    "a length alone": headed(b"", length=100),
    "a length of 2^63": headed(b"{}", length=2**63),
    "a length of 99 MB": headed(b"{}", length=99_000_000),
    "a header that is a list": headed([1]),
    "a header that is no JSON": headed(b"{a: 1}"),
    "a header in UTF-16": headed('{"a": 1}'.encode("utf-16")),
    "a header nested deeply": headed(b"[" * 100_000),
    "an entry that is a word": headed({"a": "b"}),
    "no places": one(data_offsets=[]),
    "one place": one(data_offsets=[8]),
    "places in words": one(data_offsets=["0", "8"]),
    "places below zero": one(data_offsets=[-8, 0]),
    "places in reverse": one(data_offsets=[8, 0]),
    "places beyond the file": one(data_offsets=[0, 800]),
    "places beyond all files": one(data_offsets=[0, 2**70]),
    "a shape that does not fill its places": one(shape=[3]),
    "a shape below zero": one(shape=[-2]),
    "a shape beyond all numbers": one(shape=[2**40, 2**40]),
    "a shape in words": one(shape="two"),
    "a type that does not exist": one(dtype="F31"),
    "a tensor twice in the same place": headed(
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, bytes(8)
    ),
    "a hole": headed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, bytes(16)),
    "bytes left over": headed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(80)),
    "a name that a terminal obeys": headed(
        {"\x1b[2J": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)
    ),
    "no tensors": headed({}),
    "a pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_safetensors_file_whose_header_lies(import_it, folder, name):
    (folder / "model.safetensors").write_bytes(SAFETENSORS[name])
    import_it()


@pytest.mark.parametrize("tenth", range(10))
def test_a_safetensors_file_cut_short(import_it, folder, tenth):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) * tenth // 10])
    import_it(words=["model.safetensors"])


CONFIGS = {
    "empty": b"",
    "a list": b"[]",
    "not JSON": b"{",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nested deeply": b"[" * 100_000,
    "a number too long": b'{"n_layer": ' + b"9" * 5_000 + b"}",
    **{
        f"{field} is {value}": json.dumps({field: value}).encode()
        for field, value in [
            ("n_layer", 10**12),
            ("n_layer", -1),
            ("n_layer", 1.5),
            ("n_layer", float("nan")),
            ("n_layer", None),
            ("n_embd", 2**62),
            ("n_embd", [10]),
            ("n_positions", 10**18),
            ("vocab_size", 2**62),
            ("vocab_size", True),
            ("model_type", "gpt2"),
        ]
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_of_another_network(import_it, folder, name):
    (folder / "config.json").write_bytes(CONFIGS[name])
    import_it()


CLUSTERS = [3, "red", {}, [], [[]], [[0, 0]], [[0, 0, 0]], [["a", "b", "c"]] * 7, [[0, 0, 2]] * 7, [[0, 0, None]] * 7]
CLUSTERS += [[[0, 0, 10**400]] * 7, [[[0, 0, 0]]] * 7, [[float("nan")] * 3] * 7, [[True, False, {}]] * 7]


@pytest.mark.parametrize("clusters", CLUSTERS, ids=lambda clusters: str(clusters)[:20])
def test_clusters_that_are_no_colours(import_it, folder, clusters):
    (folder / "preprocessor_config.json").write_text(json.dumps({"clusters": clusters}))
    import_it(words=["preprocessor_config.json"])


INDICES = ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../../secret.bin"}}']
INDICES += ['{"weight_map": {"a": "/etc/passwd"}}', '{"weight_map": {"a": "https://example.org/x.safetensors"}}']
INDICES += [
    '{"weight_map": {"a": "x.py"}}',
    '{"weight_map": {"a": ""}}',
    '{"weight_map": {"a": "\\u0000.bin"}}',
    "[" * 10**5,
]


@pytest.mark.parametrize("index", INDICES, ids=lambda index: index[:40])
def test_an_index_that_leads_astray(import_it, folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    import_it(words=["model.safetensors.index.json"])


def test_a_bin_with_code_in_it_is_never_executed(import_it, folder, mark):
    (folder / "model.safetensors").unlink()
    evil = {"whole": Payload(mark), "a value": {"transformer.wpe.weight": Payload(mark)}, "a key": {Payload(mark): 1}}
    for content in evil.values():
        torch.save(content, folder / "pytorch_model.bin")
        import_it(words=["pytorch_model.bin"])
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content))
        import_it(words=["pytorch_model.bin"])


@pytest.mark.parametrize("tenth", range(10))
def test_a_bin_cut_short(import_it, folder, tenth):
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[: len(content) * tenth // 10])
    import_it(words=["pytorch_model.bin"])


@pytest.mark.parametrize("content", [{1: torch.zeros(2)}, {"a": [1]}, {"a": torch.zeros(2).to_sparse()}, [], 3, None])
def test_a_bin_of_other_things(import_it, folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    import_it()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_a_file_of_theirs_that_is_no_file(import_it, folder, name, kind):
    (folder / name).unlink()
    if kind == "folder":
        (folder / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(name)
    import_it(words=["theirs" if name != "preprocessor_config.json" else "--palette"])


TENSORS = {"model/wpe": np.zeros((16, 8), np.float32), "model/wte": np.zeros((7, 8), np.float32)}


@pytest.mark.parametrize("tenth", range(10))
def test_a_tensorflow_index_cut_short(import_it, tmp_path, tenth):
    bundles.write(tmp_path / "c", TENSORS)
    content = (tmp_path / "c.index").read_bytes()
    (tmp_path / "c.index").write_bytes(content[: len(content) * tenth // 10])
    import_it("c", words=["c.index"])


@pytest.mark.parametrize("tenth", range(10))
def test_a_tensorflow_shard_cut_short(import_it, tmp_path, tenth):
    bundles.write(tmp_path / "c", TENSORS)
    content = (tmp_path / SHARD).read_bytes()
    (tmp_path / SHARD).write_bytes(content[: len(content) * tenth // 10])
    import_it("c", words=[SHARD, "cut short"])


def test_a_tensorflow_checkpoint_that_is_a_pickle_is_never_executed(import_it, tmp_path, mark):
    bundles.write(tmp_path / "c", TENSORS)
    for name in ("c.index", SHARD):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(pickle.dumps(Payload(mark)))
        import_it("c", words=[name])
        (tmp_path / name).write_bytes(kept)


@pytest.mark.parametrize("name", ["c.index", SHARD])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_a_tensorflow_file_that_is_no_file(import_it, tmp_path, name, kind):
    bundles.write(tmp_path / "c", TENSORS)
    (tmp_path / name).unlink()
    if kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(name)
    import_it("c", words=["c"])


@pytest.mark.parametrize(
    "path", ["", ".", "/", "/dev/null", "x" * 300, "https://example.org/model", "openai/imagegpt-small"]
)
def test_a_path_where_nothing_is(import_it, path):
    import_it(path, words=[path[:40]])
