"""The reader of TensorFlow's checkpoints: TensorFlow's own files, files of any layout, and damaged or hostile ones."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from igpt.interop.tensorbundle import TensorBundle
from igpt.system.errors import UserError
from tests.interop import bundles

DATA = Path(__file__).parent / "data"
LITTLE = 2**26  # bytes that reading a hostile file may take


def everything(prefix):
    bundle = TensorBundle(prefix)
    return {name: np.array(bundle.tensor(name)) for name, entry in bundle.entries.items() if entry.dtype in (1, 14, 19)}


def attempt(prefix):
    """All tensors, or the one line with which they are refused."""
    try:
        return everything(prefix)
    except UserError as error:
        return str(error) if "\n" not in str(error) else None


def same(found, wanted):
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def refusal(prefix):
    """The one line with which reading everything is refused, and little memory taken on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            everything(prefix)
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.fixture
def few():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(3, 4)).astype(np.float32) for name in ("a", "b", "model/wpe")}


@pytest.fixture
def genuine(tmp_path):
    for path in DATA.glob("bert.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "bert"


def test_the_tests_write_an_index_block_byte_for_byte_as_tensorflow_does():
    shards = [DATA / f"ar.data-0000{shard}-of-00003" for shard in range(3)]
    pairs = [(b"", bundles.header(3))]
    for name, e in TensorBundle(DATA / "ar").entries.items():
        raw = shards[e.shard].read_bytes()[e.offset : e.offset + e.size]
        fields = bundles.entry(e.dtype, e.shape, e.shard, e.offset, e.size, bundles.masked_crc(raw))
        pairs.append((name.encode(), fields))
    block = bundles.block(pairs)
    assert (DATA / "ar.index").read_bytes()[: len(block)] == block


@pytest.mark.parametrize("seed", range(12))
def test_tensors_of_any_shape_and_type_come_back_from_any_layout(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tensors, wanted = {}, {}
    for index in range(rng.integers(1, 30)):
        name = "/".join("part" * rng.integers(1, 4) + str(rng.integers(0, 99)) for _ in range(rng.integers(1, 4)))
        values = rng.normal(size=rng.integers(0, 6, rng.integers(0, 4))).astype(np.float32)
        bits = np.atleast_1d(values).view(np.uint32).reshape(values.shape)
        stored = [values, values.astype(np.float16), (bits >> 16).astype(np.uint16)][index % 3]
        tensors[name] = np.array(stored)
        wanted[name] = [values, np.float32(np.float16(values)), (bits & np.uint32(0xFFFF0000)).view(np.float32)][
            index % 3
        ]
    layout = {"per_block": int(rng.integers(1, 9)), "interval": int(rng.integers(1, 5))}
    prefix = bundles.write(tmp_path / "ckpt-1", tensors, shards=int(rng.integers(1, 4)), **layout)
    assert same(everything(prefix), wanted)


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_an_index_with_a_flipped_bit_is_refused_or_read_as_it_was(tmp_path, name):
    for path in DATA.glob(f"{name}.data*"):
        shutil.copy(path, tmp_path)
    rng, wanted = np.random.default_rng(3), everything(DATA / name)
    whole, outcomes = (DATA / f"{name}.index").read_bytes(), []
    places = range(len(whole)) if name == "bert" else [*rng.integers(0, len(whole), 250), *range(-48, 0)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / f"{name}.index").write_bytes(damaged)
        outcome = attempt(tmp_path / name)
        assert isinstance(outcome, str) or same(outcome, wanted), place
        outcomes.append(not isinstance(outcome, str))
    # only padding and what points at the unused block of statistics may change: less than the footer and that block
    assert sum(outcomes) < 48 + 13


def test_an_index_of_random_bytes_between_right_checksums_never_ends_in_a_traceback(tmp_path, few):
    """What a checksum cannot find: entries and blocks that were made up with their checksums."""
    rng, outcomes = np.random.default_rng(5), []
    bundles.write(tmp_path / "c", few)
    entries, _ = bundles.lay_out(few)
    right = [(name.encode(), bundles.entry(**fields)) for name, fields in sorted(entries.items())]
    for turn in range(400):
        pairs = [(b"", bundles.header()), *right]
        chosen = rng.integers(len(pairs))
        message = bytearray(pairs[chosen][1])
        for _ in range(rng.integers(1, 4)):
            message[rng.integers(len(message))] = rng.integers(256)
        pairs[chosen] = (pairs[chosen][0], bytes(message))
        file = bundles.table(pairs)
        if turn % 4 == 0:  # the block's own structure as well
            body = bytearray(bundles.block(pairs)[:-5])
            body[rng.integers(len(body))] = rng.integers(256)
            data = bundles.sealed(bytes(body))
            file = bundles.footed(data, bundles.block([(b"z", b"\0" + bundles.varint(len(data) - 5))]))
        (tmp_path / "c.index").write_bytes(file)
        outcomes.append(attempt(tmp_path / "c"))
    assert None not in outcomes
    assert sum(isinstance(outcome, str) for outcome in outcomes) > 200


def test_an_index_that_is_cut_short_anywhere_is_refused(genuine):
    index = genuine.with_name("bert.index")
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"bert\.index"):
            TensorBundle(genuine)


def test_data_that_are_cut_short_are_refused_by_the_name_of_a_tensor_beyond_the_end(genuine):
    data = genuine.with_name("bert.data-00000-of-00001")
    whole, entries = data.read_bytes(), TensorBundle(genuine).entries
    for length in [0, 1, *range(5, len(whole), 97), len(whole) - 1]:
        data.write_bytes(whole[:length])
        line = refusal(genuine)
        assert data.name in line
        assert any(f" {name} " in line and e.offset + e.size > length for name, e in entries.items()), line


def test_a_flipped_bit_anywhere_in_the_data_is_refused_by_the_name_of_its_tensor(genuine):
    data = genuine.with_name("bert.data-00000-of-00001")
    whole, entries, rng = data.read_bytes(), TensorBundle(genuine).entries, np.random.default_rng(7)
    for place in rng.integers(0, len(whole), 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        data.write_bytes(damaged)
        (name,) = (name for name, e in entries.items() if e.offset <= place < e.offset + e.size)
        assert f"checksum of the tensor {name} is wrong" in refusal(genuine)


def test_a_shard_that_is_not_there_is_named(tmp_path, few):
    prefix = bundles.write(tmp_path / "c", few, shards=2)
    (tmp_path / "c.data-00001-of-00002").unlink()
    assert "c.data-00001-of-00002 is not there" in refusal(prefix)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("cannot be read: ", {"shape": [2**62, 2**62]}),
        ("cannot be read: ", {"shape": [2**40]}),
        ("cannot be read: ", {"shape": [3, 5]}),
        ("cannot be read: ", {"shape": [-3, -4]}),
        ("cannot be read: ", {"shape": [1] * 300}),
        ("is not there", {"shard": 1}),
        ("is not there", {"shard": -1}),
        ("ends at byte", {"offset": -48}),
        ("ends at byte", {"size": -48}),
        ("ends at byte", {"offset": 2**62}),
        ("ends at byte", {"offset": 97}),
        ("ends at byte", {"size": 2**62, "shape": [2**60]}),
        ("ends at byte", {"size": 2**62, "dtype": 77}),
        ("checksum", {"offset": 95}),
        ("checksum", {"offset": 0}),
        ("checksum", {"crc": 0}),
        ("checksum", {"slices": [b""], "size": 0}),
    ],
)
def test_an_impossible_entry_is_refused_by_name(tmp_path, few, words, fields):
    prefix = bundles.write(tmp_path / "c", few, change=lambda entries: entries["model/wpe"].update(fields))
    line = refusal(prefix)
    assert "model/wpe" in line
    assert words in line


def test_a_type_that_holds_no_floating_point_numbers_is_refused_when_it_is_asked_for(tmp_path, few):
    prefix = bundles.write(tmp_path / "c", {**few, "global_step": np.array(7)})
    assert same(everything(prefix), few)
    with pytest.raises(UserError, match="global_step has TensorFlow's type 9"):
        TensorBundle(prefix).tensor("global_step")


@pytest.mark.parametrize(
    ("words", "head"),
    [
        ("0 shards", b""),
        ("is not there", bundles.header(-1)),
        ("is not there", bundles.header(2**62)),
        ("big-endian", bundles.header(byte_order=1)),
        ("should be a number", bundles.nested(1, b"")),
        ("unknown kind 3", b"\x0b"),
        ("longer than ten bytes", b"\xff" * 11),
        ("announced", b"\x0a\x7f"),
    ],
)
def test_a_strange_header_is_refused(tmp_path, few, words, head):
    assert words in refusal(bundles.write(tmp_path / "c", few, head=head))


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("footer", b""),
        ("footer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 70000\n"),
        ("compressed", bundles.table([(b"", bundles.header())], kind=1)),
        ("0 shards", bundles.table([(b"a", bundles.entry(1, [], 0, 0, 4, 0))])),
        ("checksum", bundles.footed(b"", bundles.block([(b"a", bundles.varint(2**63) + bundles.varint(9))]))),
        ("checksum", bundles.footed(b"", bundles.block([(b"a", bundles.varint(0) + bundles.varint(2**64 - 5))]))),
        ("checksum", bundles.footed(bytes(99), bundles.block([(b"a", b"\x05\x09")]))),
        ("announced", bundles.footed(b"", bundles.block([(b"a", b"")]))),
        ("0 shards", bundles.footed(b"", bundles.sealed(b"\xff" * 4))),
        ("0 shards", bundles.footed(b"", bundles.sealed(b""))),
        (r"'\n\\xff'", bundles.table([(b"", bundles.header()), (b"\n\xff", bundles.entry(1, [], 0, 0, 5, 0))])),
    ],
)
def test_a_strange_table_is_refused(tmp_path, words, file):
    (tmp_path / "c.index").write_bytes(file)
    assert words in refusal(tmp_path / "c")


def test_an_index_that_is_not_there_is_refused(tmp_path):
    assert "d.index cannot be read" in refusal(tmp_path / "d")
