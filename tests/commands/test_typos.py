"""A mistyped option or class is one line with what was probably meant, wherever it was typed."""

import pytest

from tests.conftest import REPO

FIT = ("fit", "--config", "digits_ar")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ((*FIT, "--model.init_args.learning_rat", "0.1"), "--model.learning_rate"),
        ((*FIT, "--model.learning_rat=0.1"), "--model.learning_rate"),
        ((*FIT, "--model.init_args.transformer.layers", "3"), "--model.transformer.n_layers"),
        ((*FIT, "--data.size", "3"), "--data.batch_size"),
        ((*FIT, "--data.init_args.split.subsetseed", "3"), "--data.split.subset_seed"),
        ((*FIT, "--trainer.max_stepss", "3"), "--trainer.max_steps"),
        ((*FIT, "--checkpoint.every", "3"), "--checkpoint.every_n_train_steps"),
        (("fit", "--confg", "digits_ar"), "--config"),
        (("probe", "--ckpt", "x.ckpt", "--data", "Digits", "--data.size", "3"), "--data.batch_size"),
        (("probe", "--chkpt", "x.ckpt"), "--ckpt"),
        (("sample", "--ckpt", "x.ckpt", "--out", "a.png", "--topk", "3"), "--top_k"),
        ((*FIT, "--model", "Bert"), "BERT"),
        ((*FIT, "--model.class_path", "igpt.modules.Bert"), "BERT"),
        ((*FIT, "--data", "digit"), "Digits"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_what_was_meant_is_named_in_one_line(words, meant, igpt):
    code, _, err = igpt(*words)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert f"did you mean {meant}?" in err
    assert "NestedArg" not in err


@pytest.mark.parametrize(
    ("right", "wrong", "meant"),
    [
        ("learning_rate", "learning_rat", "--model.learning_rate"),
        ("modules.Autoregressive", "modules.Bert", "BERT"),
        ("max_steps", "max_stepss", "--trainer.max_steps"),
        ("batch_size", "size", "--data.batch_size"),
        ("n_layers", "layers", "--model.transformer.n_layers"),
    ],
)
def test_what_was_meant_in_a_config_is_named_in_one_line(right, wrong, meant, igpt, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text((REPO / "configs" / "digits_ar.yaml").read_text().replace(right, wrong))
    code, _, err = igpt("fit", "--config", config)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert f"did you mean {meant}?" in err


def test_a_name_like_no_other_says_where_the_options_are_listed(igpt):
    code, _, err = igpt(*FIT, "--model.zzz", "1")
    assert (code, err) == (2, "igpt fit: --model.zzz is no option; 'igpt fit --model.help Autoregressive' lists them\n")


def test_the_command_that_lists_the_options_of_a_class_does(igpt):
    code, out, _ = igpt("fit", "--model.help", "igpt.modules.BERT")
    assert code == 0
    assert "mask_share" in out
