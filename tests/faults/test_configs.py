"""Broken config files, of `igpt fit` and of the verbs that take one."""

import pytest

from tests.faults.conftest import listing

GOOD = "trainer: {max_steps: 2}\n"
CONFIGS: dict[str, tuple[bytes, str]] = {  # name: content, and what the line must speak of
    "empty": (b"", "bad.yaml"),
    "blank": (b"  \n\n", "bad.yaml"),
    "a comment": (b"# nothing\n", "bad.yaml"),
    "a word": (b"model", "bad.yaml"),
    "a number": (b"3.5", "bad.yaml"),
    "a list": (b"- 1\n- 2\n", "bad.yaml"),
    "an open bracket": (b"model: [1, 2", "bad.yaml"),
    "a tab for blanks": (b"model:\n\tclass_path: x\n", "bad.yaml"),
    "two documents": (b"a: 1\n---\nb: 2\n", "bad.yaml"),
    "binary": (bytes(range(256)), "UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "UTF-8"),
    "UTF-32": (GOOD.encode("utf-32"), "bad.yaml"),
    "latin-1": ("name: größe\n".encode("latin-1"), "UTF-8"),
    "a null byte": (b"name: a\0b\n", "bad.yaml"),
    "a null byte by escape": (b'model: {init_args: {palette: "a\\0b.npy"}}\n', "model"),
    "a bell": (b"name: a\x07b\n", "bad.yaml"),
    "unfinished UTF-8": (b"name: \xc3", "UTF-8"),
    "a key given twice": (b"trainer: {max_steps: 2}\ntrainer: {max_steps: 3}\n", "'trainer' a second time"),
    "an inner key given twice": (b"trainer:\n  max_steps: 2\n  max_steps: 3\n", "line 3 gives 'max_steps'"),
    "an unknown key": (b"modle: 1\n", "modle"),
    "an unknown inner key": (b"trainer: {max_step: 1}\n", "max_step"),
    "a key that is a number": (b"1: 2\n", "1"),
    "a key that is a list": (b"? [a, b]\n: 1\n", "bad.yaml"),
    "a key that is null": (b"~: 1\n", ""),
    "an alias of nothing": (b"a: *b\n", "bad.yaml"),
    "an alias of itself": (b"a: &a [*a]\n", "alias of itself"),
    "ten thousand brackets": (b"[" * 10_000, "bad.yaml"),
    "ten thousand braces": (b"{a: " * 10_000, "bad.yaml"),
    "two megabytes": (b"#" * 2**21, "larger than a config"),
    "a call": (b"name: !!python/object/apply:os.mkdir [executed]\n", "python/object/apply"),
    "a module": (b"name: !!python/module:antigravity\n", "python/module"),
    "a name": (b"name: !!python/name:os.system\n", "python/name"),
    "a foreign tag": (b"name: !secret x\n", "!secret"),
    "a word for a number": (b"trainer: {max_steps: many}\n", "max_steps"),
    "a list for a number": (b"trainer: {max_steps: [1]}\n", "max_steps"),
    "a mapping for a number": (b"trainer: {max_steps: {a: 1}}\n", "max_steps"),
    "a number for a mapping": (b"trainer: 3\n", "trainer is 3"),
    "a word for a mapping": (b"checkpoint: last.ckpt\n", "checkpoint"),
    "null for a mapping": (b"samples: null\n", "samples"),
    "NaN for a number": (b"trainer: {max_steps: .nan}\n", "max_steps"),
    "infinity for a number": (b"trainer: {max_steps: .inf}\n", "max_steps"),
    "half a step": (b"trainer: {max_steps: 1.5}\n", "max_steps"),
    "a list for a class": (b"model: [1, 2]\n", "model"),
    "a class of another kind": (
        b"model: {class_path: subprocess.Popen, init_args: {args: [mkdir, executed]}}\n",
        "model",
    ),
    "a class that is a function": (b"model: {class_path: os.mkdir, init_args: {path: executed}}\n", "model"),
    "data of another kind": (b"data: {class_path: builtins.open}\n", "data"),
    "a callback of another kind": (
        b"trainer: {callbacks: {class_path: subprocess.Popen, init_args: {args: [mkdir, executed]}}}\n",
        "callbacks",
    ),
    "a config in a config that is gone": (b"config: gone.yaml\n", "config"),
    "a date": (b"trainer: {max_steps: 2026-01-01}\n", "max_steps"),
    "HTML": (b"<!DOCTYPE html><html><body>404: not found</body></html>", "404"),
    "JSON cut short": (b'{"trainer": {"max_steps": 2', "bad.yaml"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_broken_config_of_fit(refused, digits_run, tmp_path, name):
    content, word = CONFIGS[name]
    (tmp_path / "bad.yaml").write_bytes(content)
    refused("fit", "--config", digits_run.config, "--config", "bad.yaml", words=[word])


@pytest.mark.parametrize("name", ["a word", "a key given twice", "UTF-16", "a call", "a null byte"])
@pytest.mark.parametrize("verb", ["probe", "sample", "tune", "test"])
def test_a_broken_config_of_another_verb(refused, digits_run, tmp_path, verb, name):
    (tmp_path / "bad.yaml").write_bytes(CONFIGS[name][0])
    refused(verb, "--config", "bad.yaml", words=["bad.yaml"] if verb != "test" else [])


@pytest.mark.parametrize("place", ["folder", "loop", "broken link", "below a file", "n" * 300 + ".yaml"])
def test_a_config_that_is_no_file(refused, tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken link").symlink_to("gone.yaml")
    (tmp_path / "file").write_text(GOOD)
    refused("fit", "--config", "file/below.yaml" if place == "below a file" else place, words=["--config"])


@pytest.mark.parametrize("name", ["größe.yaml", "配置.yaml", "a b'c\".yaml", "line\nbreak.yaml", "\x1b[2J.yaml"])
def test_a_name_of_any_letters_is_one_printable_line(refused, tmp_path, name):
    (tmp_path / name).write_bytes(b"- 1\n")
    refused("fit", "--config", name, words=["--config"])


def test_a_config_with_a_byte_order_mark_or_a_few_aliases_is_good(refused, digits_run, tmp_path):
    aliases = "trainer: {callbacks: null, max_steps: &n 2, max_epochs: *n}\ndata: {init_args: {batch_size: 5000}}\n"
    (tmp_path / "good.yaml").write_bytes(b"\xef\xbb\xbf" + aliases.encode())
    refused("fit", "--config", digits_run.config, "--config", "good.yaml", words=["batch_size 5000"])
    assert list(listing(tmp_path)) == ["good.yaml"]
