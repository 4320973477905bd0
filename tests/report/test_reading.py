"""From run folders to records: real ones, ones written as the commands write them, and broken ones."""

import json
import shutil

import pytest
import torch
import yaml

from igpt.report.findings import SEEN, probes_behind
from igpt.report.reading import data_of, gather, gather_all, read_events, read_file, warn
from igpt.report.schema import Network
from igpt.report.tables import chosen, missing, published, summary
from tests.report.folders import (
    data,
    generative,
    model,
    pretrained,
    probe_record,
    score,
    tuned,
    write_checkpoint,
    write_config,
    write_events,
    write_probe,
    write_scores,
)


@pytest.fixture
def real(digits_run, tmp_path):
    """A copy of the real AR run."""
    shutil.copytree(digits_run.folder, tmp_path / "mini", symlinks=True)
    return tmp_path / "mini"


def test_a_real_run_is_read_from_its_own_files(real):
    run = gather(str(real))
    assert (run.name, run.objective, run.core, run.origin, run.seed) == ("mini", "AR", "AR", None, 0)
    assert run.network == Network(3, 32, 4, 64, 17)
    assert run.parameters == 12 * 32**2 * 3 + 2 * 32 * 3 + 32 + 64 * 32 + 2 * 17 * 32 + 32
    assert (run.steps, run.max_steps, run.learning_rate, run.steps_saved) == (30, 30, 0.01, [20, 30])
    assert run.data.label == "Digits 8x8"
    assert run.palette.shape == (17, 3)
    assert [point.step for point in run.curve("val/loss")] == [15, 30]
    assert [point.step for point in run.curve("train/loss")] == [5, 10, 15, 20, 25, 30]
    assert set(run.events.pictures) == {"samples", "completions"}
    assert "at step 30" in run.events.pictures["samples"].origin


def test_data_go_by_the_name_of_their_identity_and_without_one_by_their_class():
    spec = data(name="TorchVision")
    assert data_of({"data": spec, "identity": {"name": "SVHN"}}).name == "SVHN"
    assert data_of({"data": spec}).name == "TorchVision"


def test_a_real_probe_is_read_as_it_was_written(real, igpt):
    for name, more in (
        ("last", ("--method", "lbfgs,knn", "--concat", 3, "--labels_per_class", 4)),
        ("step=0000020", ()),
    ):
        code, _, err = igpt("probe", "--ckpt", real / "checkpoints" / f"{name}.ckpt", *more)
        assert code == 0, err
    run, record = gather(str(real)), json.loads((real / "probe" / "probe.json").read_text())
    assert [probe.step for probe in run.probes] == [20, 30]
    assert run.probe.result.best_layer == record["best_layer"]
    assert [score.test_accuracy for score in run.probe.result.layers] == [
        row["test_accuracy"] for row in record["layers"]
    ]
    assert run.probe.result.raw_pixels.test_accuracy == record["raw_pixels"]["test_accuracy"]
    assert set(run.probe.methods) == {"lbfgs", "knn"}
    assert chosen(run.probe.methods["knn"].best).startswith("k ")
    assert run.probe.result.concat.test_accuracy == record["concat"]["test_accuracy"]
    assert run.probe.low_data[0].accuracies == [one["test_accuracy"] for one in record["low_data"][0]["runs"]]
    assert (run.probe.features.norm, run.probe.features.standardise) == ("normed", True)
    assert run.probe.images == {"train": 1294, "val": 144, "test": 359}
    assert run.val_loss_at(20).step == 15


def test_a_real_bert_run_is_told_from_ar(digits_bert_run):
    run = gather(str(digits_bert_run.folder))
    assert (run.objective, run.core) == ("BERT", "BERT")
    assert run.network == Network(3, 32, 4, 64, 17)  # as AR's, though it has no start of sequence


def test_where_a_fine_tuned_run_began_is_told_by_its_config(tmp_path):
    began = {}
    for core in ("AR", "BERT"):
        began[core] = gather(str(tuned(tmp_path / core, core, 0.9))).origin
        began[f"{core} scratch"] = gather(str(tuned(tmp_path / f"{core}_s", core, 0.9, origin="scratch"))).origin
    assert began == {"AR": "AR", "BERT": "BERT", "AR scratch": "scratch", "BERT scratch": "scratch"}


def test_without_checkpoints_the_core_is_read_from_the_file_it_was_to_start_from(tmp_path):
    start = pretrained(tmp_path / "bert", "BERT", 0.8) / "checkpoints" / "last.ckpt"
    spec = model("Joint")
    spec["init_args"]["pretrained"] = str(start)
    run = gather(str(write_config(tmp_path / "joint", spec)))
    assert (run.core, run.origin) == ("BERT", "BERT")
    spec["init_args"]["pretrained"] = str(tmp_path / "gone.ckpt")
    run = gather(str(write_config(tmp_path / "lost", spec)))
    assert (run.core, run.origin) == ("unknown", "unknown")


def test_a_resumed_fine_tuning_or_one_without_config_does_not_tell_where_it_began(tmp_path):
    folder = tuned(tmp_path / "joint", "AR", 0.9)
    spec = model("Joint")
    spec["init_args"] = {**spec["init_args"], "pretrained": None, "generative": generative("AR")}
    write_config(folder, spec, ckpt_path="runs/joint/checkpoints/last.ckpt")
    assert gather(str(folder)).origin is None
    (folder / "config.yaml").unlink()
    run = gather(str(folder))
    assert (run.objective, run.core, run.origin) == ("Joint", "AR", None)
    assert any("where it began" in row[1] for row in missing([run]).rows)


def test_a_config_alone_or_a_checkpoint_alone_is_a_run(tmp_path):
    alone = gather(str(write_config(tmp_path / "config", model("AR"), seed=3)))
    assert (alone.objective, alone.seed, alone.steps, alone.parameters) == ("AR", 3, None, None)
    assert alone.network == Network(6, 96, 4, 64, 17)
    (tmp_path / "other").mkdir()
    write_checkpoint(tmp_path / "other", "BERT", "BERT", 700)
    (tmp_path / "other" / "checkpoints" / "last.ckpt").unlink()
    other = gather(str(tmp_path / "other"))
    assert (other.objective, other.steps, other.seed) == ("BERT", 700, None)


def test_a_sharded_run_is_read_without_its_tensors(tmp_path):
    folder = write_config(tmp_path / "a", model("AR"))
    write_checkpoint(folder, "AR", "AR", 400)
    file = folder / "checkpoints" / "step=0000400.ckpt"
    content = torch.load(file, weights_only=True)
    del content["state_dict"]
    file.unlink()
    file.mkdir()
    torch.save(content, file / "meta.pt")
    said = []
    run = gather(str(folder), said.append)
    assert said == []
    assert (run.steps, run.network, run.parameters, run.palette) == (400, Network(6, 96, 4, 64, 17), None, None)


def test_of_damaged_checkpoints_the_newest_intact_one_stands_for_the_run_else_its_config(tmp_path):
    folder = write_config(tmp_path / "a", model("AR"))
    for step in (100, 200, 300):
        write_checkpoint(folder, "AR", "AR", step)
    expected = {300: 200, 200: 100, 100: None}
    for number, (step, left) in enumerate(expected.items(), start=1):
        (folder / "checkpoints" / f"step={step:07d}.ckpt").write_bytes(b"PK cut")
        said = []
        assert gather(str(folder), said.append).steps == left
        assert len(said) == number  # each damaged file is named once, though last.ckpt links to one


def test_evaluations_beside_a_training_are_no_part_of_its_curve(tmp_path):
    write_events(tmp_path / "a", {"train/loss": {4: 2.0, 9: 1.5}, "val/loss": {9: 1.6}})
    write_events(tmp_path / "a" / "later", {"val/loss": {0: 9.9}, "test/loss": {0: 1.7}, "test/accuracy": {0: 0.8}})
    later = next((tmp_path / "a" / "later").iterdir())
    later.rename(tmp_path / "a" / "events.out.tfevents.99999999999.host.1.0")
    events = read_events(tmp_path / "a", warn)
    assert [(p.step, round(p.value, 3)) for p in events.curves["val/loss"]] == [(10, 1.6)]
    assert events.tested == pytest.approx({"test/loss": 1.7, "test/accuracy": 0.8})


def test_pictures_of_a_validation_do_not_replace_those_of_training(tmp_path):
    for stamp, scalars, step in ((1, {"train/loss": {9: 2.0}}, 10), (2, {"val/loss": {0: 1.9}}, 0)):
        write_events(tmp_path / str(stamp), scalars, {"samples": step})
        next((tmp_path / str(stamp)).iterdir()).rename(tmp_path / f"events.out.tfevents.{stamp}.host.1.0")
    assert "at step 10" in read_events(tmp_path, warn).pictures["samples"].origin


def test_a_resumed_run_goes_on_where_its_second_file_begins(tmp_path):
    for stamp, points in ((1, {9: 2.0, 19: 1.8, 29: 1.7}), (2, {19: 1.75, 39: 1.5})):
        write_events(tmp_path / str(stamp), {"train/loss": points})
        next((tmp_path / str(stamp)).iterdir()).rename(tmp_path / f"events.out.tfevents.{stamp}.host.1.0")
    points = [(p.step, round(p.value, 3)) for p in read_events(tmp_path, warn).curves["train/loss"]]
    assert points == [(10, 2.0), (20, 1.75), (30, 1.7), (40, 1.5)]


def test_events_that_are_cut_short_or_foreign_give_what_can_be_read(real):
    events = next(real.glob("events.out.tfevents.*"))
    content = events.read_bytes()
    whole = len(read_events(real, warn).curves["train/loss"])
    events.write_bytes(content[: len(content) // 4])
    (real / "events.out.tfevents.7.host.1.0").write_bytes(b"no events at all" * 100)
    (real / "events.out.tfevents.8.host.1.0").write_bytes(b"")
    some = len(read_events(real, warn).curves.get("train/loss", []))
    assert 0 < some < whole


def test_a_validation_of_the_very_checkpoint_goes_before_the_events(tmp_path):
    folder = pretrained(tmp_path / "a", "AR", 0.9)
    entry = {"verb": "validate", "checkpoint": "step=0000400.ckpt", "step": 400, "metrics": {"val/loss": 1.111}}
    write_scores(folder, [entry])
    run = gather(str(folder))
    assert run.val_loss_at(400).value == 1.111
    assert run.val_loss_at(500).value == pytest.approx(1.3)


def test_all_methods_layers_side_by_side_and_few_labels_are_read(tmp_path):
    record = probe_record([0.5, 0.9, 0.6])
    record["methods"]["knn"] = {
        "best_layer": 0,
        "layers": [{"layer": 0, "k": 5, "val_accuracy": 0.7, "test_accuracy": 0.6}],
        "raw_pixels": None,
        "protocol": "nearest neighbours",
    }
    side_by_side = {"layers": [0, 1, 2], "rate": 0.3, "val_accuracy": 0.95, "test_accuracy": 0.93}
    record["methods"]["lbfgs"]["concat"] = {"method": "lbfgs", **side_by_side}
    runs = [{"subset_seed": seed, "test_accuracy": 0.5 + 0.1 * seed} for seed in range(3)]
    record["low_data"] = [{"labels_per_class": 4, "subsets": 3, "runs": runs}]
    folder = write_config(tmp_path / "a", model("AR"))
    write_probe(folder, record)
    probe = gather(str(folder)).probe
    assert set(probe.methods) == {"lbfgs", "knn"}
    assert (probe.methods["knn"].best.test_accuracy, chosen(probe.methods["knn"].best)) == (0.6, "k 5")
    assert probe.methods["knn"].raw_pixels is None
    wide = probe.methods["lbfgs"].concat
    assert (wide.layers, chosen(wide), wide.test_accuracy) == ([0, 1, 2], "rate 0.3", 0.93)
    assert probe.methods["knn"].concat is None
    assert probe.low_data[0].accuracies == pytest.approx([0.5, 0.6, 0.7])
    assert (probe.features.norm, probe.features.dtype, probe.features.standardise) == ("normed", "float16", True)


def test_a_probe_of_a_version_with_one_method_is_read(tmp_path):
    record = probe_record([0.5, 0.9, 0.6])
    for name in ("methods", "concat", "low_data", "command"):
        del record[name]
    record["features"] = "mean over positions of the normed input of each layer, standardised on the training split"
    folder = write_config(tmp_path / "a", model("AR"))
    write_probe(folder, record)
    probe = gather(str(folder)).probe
    assert probe.result.best.test_accuracy == 0.9
    assert (probe.features.norm, probe.features.grid, probe.features.standardise) == ("normed", 1, True)


def test_a_run_named_twice_counts_once_and_equal_names_are_told_apart(tmp_path):
    folders = [str(write_config(tmp_path / parent / "a", model("AR"))) for parent in ("x", "y")]
    runs = gather_all([*folders, folders[0]])
    assert [run.name for run in runs] == folders


def test_low_data_runs_say_how_many_labels_and_which_subset(tmp_path):
    run = gather(str(write_config(tmp_path / "a", model("Joint"), of=data(25, subset_seed=3))))
    assert (run.data.labels_per_class, run.data.subset_seed) == (25, 3)


def test_what_is_missing_comes_with_a_command_that_makes_it(tmp_path):
    lean = gather(str(write_config(tmp_path / "lean run", model("AR"))))
    rows = {row[1]: row[2] for row in missing([lean]).rows}
    assert set(rows) == {"events of training", "test loss", "probe.json", "samples", "completions"}
    assert rows["events of training"] == "igpt fit --config configs/NAME.yaml"
    (tmp_path / "lean run" / "commands.txt").write_text("igpt test x\nigpt fit --config mine.yaml\n")
    told = {row[1]: row[2] for row in missing([gather(str(tmp_path / "lean run"))]).rows}
    assert told["events of training"] == "igpt fit --config mine.yaml"
    assert "--data" not in rows["test loss"] + rows["probe.json"]
    assert f"'{tmp_path / 'lean run' / 'checkpoints' / 'last.ckpt'}'" in rows["probe.json"]
    full = gather(str(pretrained(tmp_path / "full", "BERT", 0.9)))
    assert missing([full]) is None


def test_validating_draws_no_pictures(real, igpt):
    trained = set(real.glob("events.out.tfevents.*"))
    code, _, err = igpt("validate", "--config", real / "config.yaml", "--runs_dir", real.parent, "--ckpt_path", "last")
    assert code == 0, err
    (validated,) = set(real.glob("events.out.tfevents.*")) - trained
    scalars, pictures = read_file(validated, warn)
    assert "val/loss" in scalars
    assert pictures == {}


@pytest.fixture
def imported(tmp_path):
    """A folder as `igpt import` makes it: nothing tells on which data the weights were trained."""
    folder = tmp_path / "released"
    write_checkpoint(folder, "AR", "AR", 0)
    file = folder / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    file.resolve().unlink()
    file.unlink()
    content["igpt"]["data"] = None
    torch.save(content, file)
    (folder / "checkpoints" / "last.yaml").write_text(yaml.safe_dump({"name": "released", "model": model("AR")}))
    return folder


def test_an_imported_run_stands_beside_the_published_figures_of_the_data_it_was_tested_on(imported):
    assert gather(str(imported)).data.label == "unknown data"
    on_imagenet = score(0.0, checkpoint="last.ckpt", step=0, data=data(name="ImageNet", resolution=32), model={},
                        metrics={"test/loss": 2.0895})  # fmt: skip
    validated = {**on_imagenet, "verb": "validate", "data": data(), "metrics": {"val/loss": 9.9}}
    write_scores(imported, [on_imagenet, validated])
    run = gather(str(imported))
    assert run.data.label == "ImageNet 32x32"
    row = next(row for row in published([run]).rows if "iGPT-S" in row[0] and row[2] == "2.0895")
    assert "2.0895 (1 run)" in row[-1]


def test_what_an_imported_run_lacks_is_made_from_the_config_beside_its_checkpoint(imported):
    rows = {row[1]: row[2] for row in missing([gather(str(imported))]).rows}
    assert set(rows) == {"test loss", "probe.json", "samples", "completions"}
    assert f"--config {imported / 'checkpoints' / 'last.yaml'} --data DATA " in rows["test loss"]
    assert all("--data DATA" in rows[what] for what in ("probe.json", "completions"))


def test_the_command_for_a_missing_test_works_as_it_stands(real, igpt):
    import shlex

    before = gather(str(real))
    assert before.tested("loss") is None
    line = next(row[2] for row in missing([before]).rows if row[1] == "test loss")
    code, _, err = igpt(*shlex.split(line)[1:])
    assert code == 0, err
    after = gather(str(real))
    assert after.tested("loss") == pytest.approx(after.curve("val/loss")[-1].value, rel=0.1)
    assert [p.step for p in after.curve("val/loss")] == [15, 30]


def test_a_run_given_as_the_current_folder_has_its_own_name_in_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(write_config(tmp_path / "mine", model("AR")))
    for folder in (".", "../mine/.", "checkpoints/.."):
        (tmp_path / "mine" / "checkpoints").mkdir(exist_ok=True)
        run = gather(folder)
        line = next(row[2] for row in missing([run]).rows if row[1] == "test loss")
        assert run.name == "mine"
        assert " --name mine " in line


def test_two_data_sets_of_one_class_and_size_are_not_taken_for_one(tmp_path):
    """A probe of AR on one folder of pictures and of BERT on another say nothing about AR and BERT."""
    for objective, mark, root in (("AR", "aa", "cells"), ("BERT", "bb", "icons")):
        folder = write_config(tmp_path / objective, model(objective))
        spec = data(name="ImageFolder", resolution=16)
        record = probe_record([0.5] * 3 + [0.9 if objective == "AR" else 0.6] + [0.5] * 3, data=spec)
        write_probe(folder, {**record, "identity": {"name": "ImageFolder", "root": root, "fingerprint": mark}})
    runs = gather_all([str(tmp_path / "AR"), str(tmp_path / "BERT")])
    assert probes_behind(runs).evidence == []
    assert [run.probe.data.label for run in runs] == ["ImageFolder 16x16 #1", "ImageFolder 16x16 #2"]
    for name in ("AR", "BERT"):
        path = tmp_path / name / "probe" / "probe.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "identity": {**record["identity"], "fingerprint": "aa"}}))
    runs = gather_all([str(tmp_path / "AR"), str(tmp_path / "BERT")])
    assert [evidence.verdict for evidence in probes_behind(runs).evidence] == [SEEN]


def loss_of(folder, **more):
    """A run of AR as older versions wrote it, tested by this one."""
    write_config(folder, model("AR"))
    entry = score(0.0) | {"checkpoint": "last.ckpt", "metrics": {"test/loss": 1.5}} | more
    write_scores(folder, [entry])
    return gather_all([str(folder)])[0].tested("loss")


def test_a_run_whose_records_began_without_an_identity_keeps_its_later_test(tmp_path):
    identity = {"name": "Digits", "fingerprint": "aa"}
    assert loss_of(tmp_path / "same", identity=identity) == 1.5
    other = data()
    other["init_args"]["seed"] = 7
    assert loss_of(tmp_path / "other", identity=identity, data=other) is None


def test_where_scores_cannot_be_read_the_events_tests_may_be_of_other_data_and_count_for_nothing(tmp_path):
    folder = write_config(tmp_path / "a", model("AR"))
    write_events(folder, {"train/loss": {4: 2.0}, "test/loss": {9: 1.7}})
    assert gather(str(folder)).tested("loss") == pytest.approx(1.7)
    elsewhere = score(0.0, data=data(name="CIFAR10", resolution=32), metrics={"test/loss": 1.7})
    for content in ("[1, 2", '[{"verb": "test"}]', json.dumps([elsewhere])):
        (folder / "scores.json").write_text(content)
        assert gather(str(folder)).tested("loss") is None


def test_a_test_of_a_part_of_the_split_is_not_the_runs(tmp_path):
    assert loss_of(tmp_path / "whole", limit_batches=None) == 1.5
    assert loss_of(tmp_path / "part", limit_batches=2) is None


def test_what_a_users_module_logs_is_kept_as_it_is_and_a_loss_that_diverged_too(tmp_path):
    folder = pretrained(tmp_path / "a", "AR", 0.9)
    metrics = {"test/loss": float("nan"), "my/accuracy": 93.1, "flops": 1e18}
    write_scores(folder, [score(0.0, checkpoint="last.ckpt", step=500, metrics=metrics)])
    found = gather(str(folder)).scores[0].metrics
    assert set(found) == {"test/loss", "my/accuracy", "flops"}
    assert (found["my/accuracy"], found["flops"]) == (93.1, 1e18)
    assert "nan" in summary([gather(str(folder))]).rows[0][6]


def test_a_probe_that_was_moved_aside_is_not_read_as_that_of_its_step(tmp_path):
    folder = write_config(tmp_path / "run", model("AR"))
    for name, top in (("step=0000100", 0.9), ("step=0000100.1", 0.2)):
        record = probe_record([0.5] * 3 + [top] + [0.5] * 3, step=100)
        (folder / "probe" / name).mkdir(parents=True)
        (folder / "probe" / name / "probe.json").write_text(json.dumps(record))
    assert gather(str(folder)).probe.result.best.test_accuracy == pytest.approx(0.9)


def test_a_runs_row_says_where_its_probe_is_on_other_data_than_its_training(tmp_path):
    folder = write_config(tmp_path / "run", model("AR"))
    scores = [0.5] * 3 + [0.9] + [0.5] * 3
    write_probe(folder, probe_record(scores))
    assert summary([gather(str(folder))]).rows[0][4] == "90.0 %"
    write_probe(folder, probe_record(scores, data=data(name="SamplePhotos", resolution=16)))
    assert summary([gather(str(folder))]).rows[0][4] == "90.0 % on SamplePhotos 16x16"
