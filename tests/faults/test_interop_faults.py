"""Bad input to `igpt import` and `igpt export`: one line that names file and tensor, exit 2, nothing left behind."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from igpt.checkpoints.format import CHECKPOINT_KEY, read_checkpoint
from tests.interop.models import colors, save, theirs

LAST = "transformer.h.4.mlp.c_proj.weight"


@pytest.fixture
def here(refused, tmp_path):
    """Their folder, `theirs`, in an empty folder."""
    save(theirs("deep"), tmp_path / "theirs")
    return tmp_path / "theirs", refused


def import_it(refused, *options, words):
    refused("import", "--path", "theirs", "--out", "sub/x.ckpt", *options, words=words)


def changed(folder, **tensors):
    """Their file with tensors replaced, added, or (None) taken out; `__` stands for a dot."""
    state = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        state.pop(name.replace("__", "."), None)
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformer__ln_f__weight": None}, ["lacks the tensor transformer.ln_f.weight (24,)"]),
        ({"lm_head__weight": None}, ["lacks the tensor lm_head.weight"]),
        ({"transformer__h__2__attn__c_attn__bias": None}, ["lacks the tensor transformer.h.2.attn.c_attn.bias"]),
        ({"transformer__wpe__weight": torch.zeros(63, 24)}, ["transformer.wpe.weight", "(63, 24)", "(64, 24)"]),
        ({"transformer__h__0__mlp__c_fc__weight": torch.zeros(96, 24)}, ["h.0.mlp.c_fc.weight", "(96, 24)"]),
        ({"transformer__wte__weight": torch.zeros(17, 24)}, ["transformer.wte.weight", "(17, 24)", "(18, 24)"]),
        ({"transformer__h__5__ln_1__weight": torch.ones(24)}, ["the tensor transformer.h.5.ln_1.weight"]),
        ({"extra": torch.ones(1)}, ["the tensor extra"]),
        ({"score__weight": torch.ones(10, 23)}, ["score.weight", "(10, 23)"]),
        ({"score__weight": torch.tensor(1.0)}, ["score.weight", "()"]),
        ({"score__weight": torch.full((10, 24), torch.nan)}, ["not finite (in class head)"]),
        ({"transformer__ln_f__weight": torch.full((24,), torch.inf)}, ["not finite (in ln_f.weight)"]),
        ({"transformer__ln_f__weight": torch.ones(24, dtype=torch.int8)}, ["transformer.ln_f.weight", "int8"]),
        ({"transformer__h__3__mlp__c_proj__bias": torch.full((24,), torch.nan)}, ["h.3.mlp.c_proj.bias", "not zero"]),
    ],
)
def test_a_tensor_that_is_off_is_named(here, change, words):
    folder, refused = here
    changed(folder, **change)
    import_it(refused, words=["theirs", *words])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "gelu"),
        ("reorder_and_upcast_attn", True),
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
        ("tie_word_embeddings", True),
        ("layer_norm_epsilon", 1e-6),
        ("n_inner", 48),
        ("n_head", 5),
        ("n_positions", -64),
        ("n_embd", "wide"),
        ("n_layer", 0),
        ("vocab_size", 1),
        ("model_type", "gpt2"),
    ],
)
def test_a_config_that_our_network_is_not_is_refused_by_its_field(here, field, value):
    folder, refused = here
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    import_it(refused, words=["config.json", field])


def test_a_file_cut_short_anywhere_is_one_line(here):
    folder, refused = here
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    for end in (len(content) - 100, length + 10, length - 10, 100, 5, 0):
        file.write_bytes(content[:end])
        import_it(refused, words=["model.safetensors is cut short or damaged", "not a whole safetensors file"])


@pytest.mark.parametrize(
    "header",
    [b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', b'{"a": {}}', b"\xff\xff"],
)
def test_a_damaged_header_is_one_line(here, header):
    folder, refused = here
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    import_it(refused, words=["model.safetensors", "not a whole safetensors file"])


class Evil:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_bin_with_code_in_it_is_refused_and_not_executed(here):
    folder, refused = here
    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wpe.weight": Evil()}, folder / "pytorch_model.bin")
    import_it(refused, words=["pytorch_model.bin", "not executed"])
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    import_it(refused, words=["pytorch_model.bin"])


def test_a_bin_cut_short_or_of_other_content_is_one_line(here):
    folder, refused = here
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[: len(content) // 2])
    import_it(refused, words=["pytorch_model.bin", "cut short"])
    torch.save([1, 2], folder / "pytorch_model.bin")
    import_it(refused, words=["pytorch_model.bin", "tensors under names"])


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({}, ["weight_map"]),
        ({"weight_map": {"a": "../secret.safetensors"}}, ["../secret.safetensors"]),
        ({"weight_map": {"a": "model-1.safetensors"}}, ["model-1.safetensors is missing"]),
        ({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, ["both hold the tensor"]),
    ],
)
def test_an_index_that_is_off_is_named(here, index, words):
    folder, refused = here
    for name in ("one", "two"):
        (folder / f"{name}.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    import_it(refused, words=words)


def test_a_folder_without_weights_or_config_says_what_it_needs(here, tmp_path):
    folder, refused = here
    (folder / "model.safetensors").unlink()
    import_it(refused, words=["theirs holds no weights", "model.safetensors"])
    (folder / "config.json").write_text("{")
    import_it(refused, words=["config.json", "JSON"])
    (folder / "config.json").unlink()
    import_it(refused, words=["--path theirs", "config.json", ".index"])
    import_it(refused, "--format", "huggingface", words=["config.json does not exist"])
    import_it(refused, "--format", "openai", words=["theirs"])


def test_colours_that_are_missing_or_do_not_fit_are_one_line(here, tmp_path):
    folder, refused = here
    np.save(tmp_path / "few.npy", colors(16))
    (tmp_path / "none.json").write_text("{}")
    import_it(refused, "--palette", "few.npy", words=["--palette few.npy", "16", "17"])
    import_it(refused, "--palette", "none.json", words=["none.json", "clusters"])
    import_it(refused, "--palette", "gone.npy", words=["gone.npy", "does not exist"])
    (folder / "preprocessor_config.json").write_text(json.dumps({"clusters": [[0, 0, 9.0]] * 17}))
    import_it(refused, words=["preprocessor_config.json", "[-1, 1]"])
    (folder / "preprocessor_config.json").unlink()
    import_it(refused, words=["--palette", "kmeans_centers.npy"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "x.pt"], ["--out x.pt", ".ckpt"]),
        (["--format", "pytorch"], ["--format"]),
        (["--alignment", "huggingface"], ["--alignment", "--data"]),
        (["--alignment", "other", "--data", "Digits"], ["--alignment"]),
    ],
)
def test_options_that_are_off(here, options, words):
    _, refused = here
    refused("import", "--path", "theirs", "--out", "x.ckpt", *options, words=words)


def test_a_config_of_the_same_name_is_never_overwritten(here, tmp_path):
    _, refused = here
    (tmp_path / "mine.yaml").write_text("model: mine")
    refused("import", "--path", "theirs", "--out", "mine.ckpt", words=["mine.yaml", "would be lost"])
    assert (tmp_path / "mine.yaml").read_text() == "model: mine"


@pytest.mark.parametrize("name", ["mine.ckpt", "mine.classes.ckpt"])
def test_a_checkpoint_that_no_import_wrote_is_never_overwritten(here, digits_run, tmp_path, name):
    _, refused = here
    refused_out = ("import", "--path", "theirs", "--out", "mine.ckpt")
    trained = digits_run.checkpoint.read_bytes()
    for content in (trained, trained[:1000], b"other"):
        (tmp_path / name).write_bytes(content)
        refused(*refused_out, words=["--out", f"{name} is not of this command"])
        assert (tmp_path / name).read_bytes() == content
    for change in ({"global_step": 1, "data": None}, {"global_step": 0, "data": {"class_path": "D"}}):
        whole = read_checkpoint(digits_run.checkpoint) | {"global_step": change["global_step"]}
        whole[CHECKPOINT_KEY]["data"] = change["data"]
        torch.save(whole, tmp_path / name)
        refused(*refused_out, words=["--out", f"{name} is not of this command"])


def exported(refused, checkpoint, *options, words):
    refused("export", "--ckpt", checkpoint, "--out", "out", *options, words=words)


def rewritten(checkpoint, path, change):
    content = read_checkpoint(checkpoint)
    change(content[CHECKPOINT_KEY]["model"]["init_args"], content["state_dict"])
    torch.save(content, path)
    return path


def test_what_imagegpt_cannot_hold_is_refused(refused, digits_run, digits_bert_run, tmp_path):
    exported(refused, digits_bert_run.checkpoint, words=["BERT", "--format safetensors"])
    for name, change, words in (
        ("layer", lambda args, _: args["transformer"].update(norm="layer"), ["norm layer"]),
        ("order", lambda args, _: args.update(order="spiral"), ["order spiral"]),
        ("gone", lambda _, state: state.pop("transformer.blocks.1.mlp.fc.weight"), ["blocks.1.mlp.fc.weight"]),
    ):
        checkpoint = rewritten(digits_run.checkpoint, tmp_path / f"{name}.ckpt", change)
        exported(refused, checkpoint, words=[f"{name}.ckpt", *words])


def test_a_folder_of_other_files_is_never_replaced(refused, digits_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    exported(refused, digits_run.checkpoint, words=["out/thesis.tex", "--out"])
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    refused("export", "--ckpt", "gone.ckpt", "--out", "new", words=["gone.ckpt"])
    exported(refused, digits_run.checkpoint, "--format", "onnx", words=["--format"])


@pytest.mark.parametrize("form", ["huggingface", "safetensors", "checkpoint"])
def test_an_export_never_replaces_the_checkpoint_it_reads(digits_run, igpt, refused, tmp_path, form):
    code = igpt("export", "--ckpt", digits_run.checkpoint, "--out", "one", "--format", "checkpoint")[0]
    assert code == 0
    (tmp_path / "linked.ckpt").symlink_to("one/model.ckpt")
    (tmp_path / "linked").symlink_to("one")
    for ckpt, out in (("one/model.ckpt", "one"), ("linked.ckpt", "one"), ("linked/model.ckpt", "one/../one")):
        refused("export", "--ckpt", ckpt, "--out", out, "--format", form, words=[f"--out {out}", f"--ckpt {ckpt}"])
