"""Broken and foreign files in a run's folder: they are left out, and one line names each; all the rest stands."""

import os
import shutil

import pytest

from igpt.report.reading import gather
from igpt.system.errors import UserError
from tests.report.folders import pretrained, probe_record, score, write_config, write_probe, write_scores


def no_folder(folder):
    shutil.rmtree(folder)


def an_empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def a_config_that_is_no_yaml(folder):
    (folder / "config.yaml").write_text("model: [")


def a_foreign_config(folder):
    (folder / "config.yaml").write_text("- 1\n- 2\n")


def a_foreign_model(folder):
    shutil.rmtree(folder)
    write_config(folder, {"class_path": "torch.nn.Linear"})


def a_cut_checkpoint(folder):
    file = folder / "checkpoints" / "last.ckpt"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:1000])


def a_probe_that_is_no_json(folder):
    (folder / "probe" / "probe.json").write_text('{"step": 5')


def a_probe_with_words_for_numbers(folder):
    record = probe_record([0.5, 0.6])
    record["methods"]["lbfgs"]["layers"][0]["test_accuracy"] = "high"
    write_probe(folder, record)


def a_probe_that_is_a_list(folder):
    (folder / "probe" / "probe.json").write_text("[1, 2]")


def scores_that_are_no_list(folder):
    (folder / "scores.json").write_text("{}")


def scores_without_metrics(folder):
    write_scores(folder, [{"verb": "test"}])


def scores_with_half_a_likelihood(folder):
    write_scores(folder, [score(0.5, likelihood={"images": 5})])


def a_picture_that_is_none(folder):
    (folder / "samples.png").write_bytes(b"not a picture")


def commands_that_cannot_be_read(folder):
    (folder / "commands.txt").unlink()
    (folder / "commands.txt").symlink_to("/proc/self/mem")  # a plain file that gives an error, to root as well


RUINED = {
    no_folder: "no such folder",
    an_empty_folder: "neither config.yaml nor checkpoints",
    a_foreign_model: "no class of igpt",
}
BROKEN = {
    a_config_that_is_no_yaml: "config.yaml",
    a_foreign_config: "config.yaml",
    a_cut_checkpoint: "last.ckpt",
    a_probe_that_is_no_json: "probe.json",
    a_probe_with_words_for_numbers: "probe.json",
    a_probe_that_is_a_list: "probe.json",
    scores_that_are_no_list: "scores.json",
    scores_without_metrics: "scores.json",
    scores_with_half_a_likelihood: "scores.json",
    a_picture_that_is_none: "samples.png",
    commands_that_cannot_be_read: "commands.txt",
}


@pytest.mark.parametrize("harm", RUINED, ids=lambda harm: harm.__name__)
def test_a_folder_that_holds_no_run_is_one_line_that_names_it(harm, tmp_path):
    folder = pretrained(tmp_path / "broken", "AR", 0.9)
    harm(folder)
    with pytest.raises(UserError, match=RUINED[harm]) as caught:
        gather(str(folder))
    one_line(str(caught.value), folder)


@pytest.mark.parametrize("harm", BROKEN, ids=lambda harm: harm.__name__)
def test_a_broken_file_is_left_out_and_named_and_the_rest_of_the_run_stands(harm, tmp_path):
    if harm is commands_that_cannot_be_read and not os.path.exists("/proc/self/mem"):
        pytest.skip("no such file on this system")
    folder = pretrained(tmp_path / "broken", "AR", 0.9)
    whole = vars(gather(str(folder)))
    harm(folder)
    said = []
    run = vars(gather(str(folder), said.append))
    (line,) = said
    one_line(line, folder)
    assert BROKEN[harm] in line
    lost = {name for name in whole if name != "palette" and run[name] != whole[name]}
    assert lost <= LOST[BROKEN[harm]]
    assert lost or harm is a_cut_checkpoint


LOST = {
    "config.yaml": {"seed", "max_steps", "precision"},
    "last.ckpt": {"steps_saved"},
    "probe.json": {"probes"},
    "scores.json": {"scores"},
    "samples.png": {"pictures"},
    "commands.txt": {"commands"},
}


def one_line(text, folder):
    assert str(folder) in text
    assert "\n" not in text
