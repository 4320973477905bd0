"""Numbers that are none, too large or below zero, and places that cannot be written to."""

import os

import pytest

NOT_HERE = "/proc/nowhere"  # where not even root can make a folder


@pytest.mark.parametrize(
    ("verb", "options", "word"),
    [
        ("palette", ["--colors", "nan"], "--colors"),
        ("palette", ["--colors", "1e9"], "--colors"),
        ("palette", ["--colors", "-5"], "--colors"),
        ("palette", ["--colors", "9" * 40], "--colors"),
        ("palette", ["--colors", ""], "--colors"),
        ("palette", ["--seed", "-1"], "--seed"),
        ("palette", ["--seed", "9" * 40], "--seed"),
        ("palette", ["--seed", "inf"], "--seed"),
        ("palette", ["--data.batch_size", "-1"], "batch_size"),
        ("palette", ["--data.resolution", "0"], "resolution"),
        ("palette", ["--data.seed", "-1"], "seed"),
        ("palette", ["--data.split.val_share", "nan"], "val_share"),
        ("palette", ["--data.split.val_share", "1e-9"], "val_share"),
        ("palette", ["--data.num_workers", "-1"], "num_workers"),
        ("palette", ["--data", "igpt.data.ImageDataModule"], "--data"),
        ("palette", ["--data", "../evil.py"], "--data"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_palette_with_a_number_off(refused, verb, options, word):
    refused(verb, "--data", "Digits", "--colors", 4, "--out", "p.npy", *options, words=[word])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--temperature", "nan"], "--temperature"),
        (["--temperature", "-inf"], "--temperature"),
        (["--top_p", "nan"], "--top_p"),
        (["--top_p", "-0.0"], "--top_p"),
        (["--top_k", "1.5"], "--top_k"),
        (["--num", "-1"], "--num"),
        (["--num", "nan"], "--num"),
        (["--rows", "-1"], "--rows"),
        (["--rows", "2", "--keep", "nan"], "--keep"),
        (["--rows", "2", "--keep", "inf"], "--keep"),
        (["--seed", "9" * 40], "--seed"),
        (["--seed", "1.5"], "--seed"),
        (["--num", "9" * 15], "--num"),
        (["--rows", "2", "--num", "9" * 15], "--num"),
        (["--temperature", "1e-320"], "--temperature"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_sample_with_a_number_off(refused, digits_run, options, word):
    refused("sample", "--ckpt", digits_run.checkpoint, "--out", "s.png", "--accelerator", "cpu", *options, words=[word])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model.init_args.learning_rate", "nan"),
        ("model.init_args.learning_rate", ".nan"),
        ("model.init_args.learning_rate", ".inf"),
        ("model.init_args.learning_rate", "-1"),
        ("model.init_args.learning_rate", "fast"),
        ("model.init_args.betas", "[0.9]"),
        ("model.init_args.betas", "[0.9, 1.5]"),
        ("model.init_args.weight_decay", "-1"),
        ("model.init_args.warmup_steps", "-1"),
        ("model.init_args.order", "zigzag"),
        ("model.init_args.transformer.n_layers", "0"),
        ("model.init_args.transformer.d_model", "-32"),
        ("model.init_args.transformer.d_model", "32.5"),
        ("model.init_args.transformer.n_heads", "null"),
        ("model.init_args.transformer.norm", "batch"),
        ("data.init_args.seed", "-1"),
        ("data.init_args.split.labels_per_class", "0"),
        ("trainer.max_steps", "0"),
        ("trainer.devices", "0"),
        ("trainer.devices", "-3"),
        ("trainer.accelerator", "abacus"),
        ("trainer.precision", "12"),
        ("trainer.strategy", "luck"),
        ("trainer.accumulate_grad_batches", "0"),
        ("trainer.val_check_interval", "-1"),
        ("trainer.val_check_interval", "0"),
        ("trainer.check_val_every_n_epoch", "0"),
        ("trainer.max_epochs", "0"),
        ("trainer.num_nodes", "0"),
        ("trainer.devices", "gpu"),
        ("trainer.devices", "999"),
        ("trainer.limit_train_batches", "0"),
        ("trainer.limit_train_batches", "2.5"),
        ("trainer.gradient_clip_algorithm", "scissors"),
        ("trainer.gradient_clip_val", "nan"),
        ("checkpoint.every_n_train_steps", "-1"),
        ("samples.num", "-1"),
        ("samples.every_n_validations", "0"),
        ("seed_everything", "-1"),
        ("seed_everything", "9" * 30),
        ("runs_dir", NOT_HERE),
        ("name", "../../" * 40 + NOT_HERE),
        ("name", "n" * 300),
    ],
    ids=lambda value: value[:60],
)
def test_a_training_with_a_number_off(refused, digits_run, option, value):
    refused("fit", "--config", digits_run.config, f"--{option}", value, words=[name_of(option, value)])


def name_of(option, value):
    """The word that the line must have: for places the place, else the option."""
    return value[:40] if option == "runs_dir" else option.rpartition(".")[2]


@pytest.mark.parametrize(
    ("verb", "options", "name"),
    [
        ("palette", ["--data", "Digits", "--colors", "4"], "p.npy"),
        ("sample", ["--num", "1"], "s.png"),
        ("surprise", ["picture.png"], "s.png"),
        ("report", ["run"], "r.html"),
        ("export", [], "e"),
        ("probe", ["--layers", "1", "--method", "knn"], "p"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value else "",
)
class TestPlacesThatCannotBeWrittenTo:
    @pytest.fixture
    def write_to(self, refused, digits_run, tmp_path, verb, options, name):
        from PIL import Image

        Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
        (tmp_path / "run").symlink_to(digits_run.folder)
        needs = [] if verb in ("palette", "report") else ["--ckpt", digits_run.checkpoint]
        return lambda place: refused(verb, *options, *needs, "--out", place, words=[str(place)[:40]])

    def test_below_a_file(self, write_to, tmp_path, name):
        (tmp_path / "file").write_text("mine")
        write_to(f"file/{name}")

    def test_where_nobody_may_write(self, write_to, name):
        write_to(f"{NOT_HERE}/{name}")

    def test_a_name_too_long_for_a_file(self, write_to, name):
        write_to("n" * 300 + os.path.splitext(name)[1])

    def test_a_loop_of_links(self, write_to, tmp_path, name):
        (tmp_path / "loop").symlink_to("loop")
        write_to(f"loop/{name}")

    def test_what_is_there_is_of_the_other_kind(self, write_to, tmp_path, name):
        if os.path.splitext(name)[1]:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("mine")
        write_to(name)


@pytest.mark.parametrize(
    ("verb", "options", "beside"),
    [
        ("palette", ["--data", "Digits", "--colors", "4", "--out", "p.npy"], "p.json"),
        ("palette", ["--data", "Digits", "--colors", "4", "--out", "p.npy"], "p.png"),
        ("sample", ["--num", "1", "--out", "s.png"], "s.npy"),
        ("surprise", ["picture.png", "--out", "s.png"], "s.npy"),
        ("report", ["run", "--out", "r.html"], "r.md"),
    ],
)
def test_nothing_is_written_where_the_file_beside_it_cannot_be(refused, digits_run, tmp_path, verb, options, beside):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "run").symlink_to(digits_run.folder)
    (tmp_path / beside).mkdir()
    needs = [] if verb in ("palette", "report") else ["--ckpt", digits_run.checkpoint]
    refused(verb, *options, *needs, words=[beside])
