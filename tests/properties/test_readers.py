"""Readers of strangers' files on bytes that were good once: the right result or one line, never anything else."""

import io
import json
import struct
import tarfile
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as to_safetensors

from igpt.checkpoints.format import read_checkpoint
from igpt.checkpoints.spec import header_of
from igpt.data import BadImageError
from igpt.interop.huggingface import clusters_of, config_of
from igpt.interop.leveltable import read_table
from igpt.interop.tensorbundle import TensorBundle
from igpt.interop.weights import open_weights, shapes_of_safetensors
from igpt.palette.palette import MAX_COLORS, Palette
from igpt.parsing.configs import check_text
from igpt.parsing.parser import CommandParser
from igpt.probing.store import read_manifest
from igpt.system.errors import UserError
from igpt_datamodules.files import SUFFIXES, Stored, read_rgb, stored_images
from tests.datamodules.pictures import encoded, picture
from tests.interop import bundles

DATA = Path(__file__).parents[1] / "interop" / "data"
LARGEST = 400e6  # bytes that Python may hold while it reads a file of some kB
CHANGE = st.one_of(
    st.tuples(st.just("set"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 9)),
)
CHANGES = st.lists(CHANGE, min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def changed(content, changes):
    """Bytes with some set, flipped, inserted, dropped, or all cut off from a place on."""
    data = bytearray(content)
    for kind, share, what in changes:
        at = min(len(data) - 1, int(share * len(data)))
        if at < 0:
            break
        if kind == "set":
            data[at] = what
        elif kind == "flip":
            data[at] ^= 1 << what
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = what
        else:
            del data[at : at + what]
    return bytes(data)


def one_line(error, *words):
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


@given(CHANGES)
def test_a_changed_index_of_tensorflow_is_the_same_or_one_line(here, changes):
    content = (DATA / "ar.index").read_bytes()
    (here / "x.index").write_bytes(changed(content, changes))
    try:
        found = read_table(here / "x.index")
    except UserError as error:
        one_line(error, "x.index")
    else:
        assert found == read_table(DATA / "ar.index")  # every block is under a checksum


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(
    st.dictionaries(NAMES, st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=6), st.integers(1, 3), CHANGES
)
def test_a_changed_tensorflow_checkpoint_gives_the_tensors_that_were_written_or_one_line(here, shapes, shards, changes):
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    bundles.write(here / "b", tensors, shards=shards)
    bundle = TensorBundle(here / "b")
    assert {name: bundle.tensor(name).tolist() for name in tensors} == {n: t.tolist() for n, t in tensors.items()}
    for path in (here / "b.index", here / f"b.data-00000-of-{shards:05d}"):
        whole = path.read_bytes()
        path.write_bytes(changed(whole, changes))
        try:
            bundle = TensorBundle(here / "b")
            for name in tensors:
                assert np.array_equal(bundle.tensor(name), tensors[name])
        except UserError as error:
            one_line(error, "b.")
        path.write_bytes(whole)


@given(CHANGES)
def test_a_changed_safetensors_file_has_shapes_or_is_one_line(here, changes):
    whole = to_safetensors({"a": torch.zeros(2, 3), "b.c": torch.zeros(4, dtype=torch.float16)})
    (here / "model.safetensors").write_bytes(changed(whole, changes))
    try:
        for shape in shapes_of_safetensors(here / "model.safetensors").values():
            assert all(isinstance(size, int) and size >= 0 for size in shape)
    except UserError as error:
        one_line(error, "model.safetensors")


@given(JSON, st.binary(max_size=40))
def test_any_header_of_safetensors_is_shapes_or_one_line(here, header, body):
    text = json.dumps(header).encode()
    (here / "any.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    try:
        shapes_of_safetensors(here / "any.safetensors")
    except UserError as error:
        one_line(error, "any.safetensors")


@given(JSON)
def test_any_index_of_parts_is_one_line_and_leads_nowhere_else(here, content):
    folder = here / "parts"
    folder.mkdir(exist_ok=True)
    (here / "outside.safetensors").write_bytes(to_safetensors({"a": torch.zeros(1)}))
    for index in (content, {"weight_map": content}, {"weight_map": {"a": content}}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError) as caught:
            open_weights(folder)
        one_line(caught.value, "model.safetensors.index.json")


@given(
    st.dictionaries(st.sampled_from(["n_layer", "n_embd", "n_head", "n_positions", "vocab_size", "n_inner", "a"]), JSON)
)
def test_any_config_of_hugging_face_is_a_network_or_one_line(content):
    try:
        config = config_of(content, "config.json")
    except UserError as error:
        one_line(error, "config.json")
    else:
        assert config.d_model % config.n_heads == 0


@given(JSON)
def test_any_clusters_are_colours_or_one_line(content):
    try:
        colors = clusters_of({"clusters": content}, "p.json", needed=False)
    except UserError as error:
        one_line(error, "p.json")
    else:
        assert content is None or colors.shape[1] == 3


@settings(max_examples=150)
@given(CHANGES)
def test_a_changed_palette_is_colours_or_one_line(here, changes):
    stream = io.BytesIO()
    np.save(stream, np.linspace(-1, 1, 51, dtype=np.float32).reshape(17, 3))
    (here / "p.npy").write_bytes(changed(stream.getvalue(), changes))
    try:
        colors = Palette.load(here / "p.npy").colors
    except UserError as error:
        one_line(error, "p.npy")
    else:
        assert colors.shape[1] == 3
        assert 1 <= len(colors) <= MAX_COLORS
        assert colors.abs().max() <= 1 + 1e-6


@given(JSON)
def test_any_manifest_of_a_store_is_one_line(here, content):
    from igpt.probing.store import as_text, digest

    def refuse(manifest):
        (here / "manifest.json").write_bytes(as_text(manifest))
        with pytest.raises(UserError) as caught:
            read_manifest(here)
        one_line(caught.value, "manifest.json is damaged")

    refuse(content)
    if isinstance(content, dict):
        refuse(content | {"sha256": digest(content)})
        sealed = content | {"format": 1}
        refuse(sealed | {"sha256": digest(sealed)})


@cache
def parser():
    made = CommandParser(prog="igpt")
    made.add_argument("--config", action="config")
    made.add_argument("--trainer.max_steps", type=int, default=1)
    made.add_argument("--name", type=str | None, default=None)
    return made


CONFIG = "name: run\ntrainer: &t\n  max_steps: 3\n"


@settings(max_examples=150)
@given(st.one_of(CHANGES.map(lambda changes: changed(CONFIG.encode(), changes)), st.binary(max_size=60), JSON))
def test_any_config_is_options_or_one_line(here, content):
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    (here / "x.yaml").write_bytes(content)
    try:
        values = parser().parse_args(["--config", str(here / "x.yaml")])
    except UserError as error:
        one_line(error)
    else:
        assert isinstance(values.trainer.max_steps, int | None)
        check_text(content.decode())  # the parser takes nothing that this refuses


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@given(CHANGES)
def test_a_changed_tar_gives_members_inside_it_or_is_listed(here, changes):
    folder = here / "tars"
    folder.mkdir(exist_ok=True)
    write_tar(
        folder / "x.tar", [(f"{i}.png", encoded(picture(i, (8, 8)), "PNG")) for i in range(3)] + [("a.txt", b"a")]
    )
    content = changed((folder / "x.tar").read_bytes(), changes)
    (folder / "x.tar").write_bytes(content)
    images, skipped, _ = stored_images(folder)
    assert len(skipped) <= 1
    for image in images:
        assert image.name.isprintable()
        assert image.member.lower().endswith(SUFFIXES)
        seen(image)


def seen(stored):
    """The reader's promise: an RGB image or a reason in one line."""
    try:
        image = read_rgb(stored)
    except BadImageError as error:
        one_line(error)
        return None
    assert image.mode == "RGB"
    return image


@cache
def genuine(kind):
    image = picture(0, (24, 20))
    modes = {"GIF": image.convert("P"), "PPM": image, "TIFF": image.convert("CMYK"), "PNG": image.convert("RGBA")}
    return encoded(modes.get(kind, image), kind)


@settings(max_examples=300)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]), CHANGES)
def test_a_changed_picture_is_rgb_or_a_reason(here, kind, changes):
    (here / "x.png").write_bytes(changed(genuine(kind), changes))
    tracemalloc.start()
    try:
        seen(Stored(str(here / "x.png")))
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_are_rgb_or_a_reason(here, content):
    (here / "y.png").write_bytes(content)
    seen(Stored(str(here / "y.png")))
    seen(Stored(str(here / "y.png"), "member.png", 3, 10**15))


def test_a_genuine_picture_of_every_kind_is_seen(here):
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        (here / "z.png").write_bytes(genuine(kind))
        assert isinstance(seen(Stored(str(here / "z.png"))), Image.Image)


@cache
def checkpoint():
    stream = io.BytesIO()
    model = {"class_path": "igpt.modules.Autoregressive", "init_args": {"transformer": {"n_layers": 1}}}
    content = {"igpt": {"format": 1, "model": model}, "state_dict": {"a": torch.arange(4.0)}, "global_step": 3}
    torch.save(content, stream)
    return stream.getvalue()


@settings(max_examples=150)
@given(CHANGES)
def test_a_changed_checkpoint_has_a_header_or_is_one_line(here, changes):
    (here / "x.ckpt").write_bytes(changed(checkpoint(), changes))
    try:
        header = read_checkpoint(here / "x.ckpt")["igpt"]
    except UserError as error:
        one_line(error, "x.ckpt")
    else:
        assert isinstance(header["model"]["init_args"], dict)


@given(JSON)
def test_any_header_of_a_checkpoint_names_a_model_or_is_one_line(content):
    for stored in (content, {"model": content}, {"model": {"class_path": content, "init_args": {}}}):
        try:
            header = header_of(stored, "x.ckpt")
        except UserError as error:
            one_line(error, "x.ckpt")
        else:
            assert isinstance(header["model"]["class_path"], str)
