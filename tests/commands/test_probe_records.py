"""Where the results of probes stand: none destroys another, nothing of the user's is touched, one probe at a time."""

import json
import shutil
from pathlib import Path

import pytest

from igpt.commands.probe import data_to_probe
from igpt.system.files import sha256_of
from igpt.system.locks import only_writer

RESULTS = ["low_data.json", "probe.csv", "layers.png", "probe.json"]
QUICK = ["--layers", 1, "--method", "knn"]


@pytest.fixture(scope="module")
def made(digits_run, tmp_path_factory):
    """A probe by k-NN and with few labels."""
    from igpt.cli import main

    out = tmp_path_factory.mktemp("made") / "out"
    words = ["probe", "--ckpt", digits_run.checkpoint, *QUICK, "--labels-per-class", 4, "--subsets", 2, "--out", out]
    assert main([str(word) for word in words]) == 0
    return out


@pytest.fixture
def out(made, tmp_path):
    """A copy of its results."""
    return shutil.copytree(made, tmp_path / "out")


@pytest.fixture
def probe(igpt, digits_run, out):
    return lambda *words, ckpt=digits_run.checkpoint: igpt("probe", "--ckpt", ckpt, "--out", out, *words)


def record(folder):
    return json.loads((folder / "probe.json").read_text())


def results(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


OTHER = {
    "data": [*QUICK, "--data", "Digits", "--data.seed", 3],
    "features": [*QUICK, "--norm", "raw"],
    "layers": ["--layers", 2, "--method", "knn"],
    "subsets": ["--layers", 1, "--labels-per-class", 4, "--subsets", 3],
}


@pytest.mark.parametrize("words", OTHER.values(), ids=OTHER)
def test_a_probe_of_other_data_or_options_moves_the_earlier_one_aside_and_says_so(probe, out, words):
    before = results(out)
    code, printed, err = probe(*words)
    assert code == 0, err
    aside = out.with_name("out.1")
    assert f"{out} held a probe of another checkpoint, other data or options, which is now {aside}" in printed
    assert results(aside) == before
    assert len(list(aside.iterdir())) == len(RESULTS)
    assert record(out)["earlier_commands"] == []
    assert (out / "low_data.json").exists() == ("--subsets" in words)


def test_each_next_one_goes_to_a_folder_of_its_own(probe, out):
    for words in OTHER["data"], OTHER["layers"]:
        assert probe(*words)[0] == 0
    seeds = [record(out.with_name(f"out{end}"))["data"]["init_args"]["seed"] for end in (".1", ".2", "")]
    assert seeds == [0, 3, 0]


def test_a_probe_of_another_checkpoint_in_one_folder_moves_the_first_aside(probe, out, digits_run):
    assert probe(*QUICK, ckpt=digits_run.folder / "checkpoints" / "step=0000020.ckpt")[0] == 0
    assert (record(out)["step"], record(out.with_name("out.1"))["step"]) == (20, 30)


def test_the_same_again_and_another_method_stay_in_one_record(probe, out):
    for words in ([], ["--method", "lbfgs", "--layers", 1], ["--labels-per-class", 8, "--subsets", 2, *QUICK]):
        code, printed, err = probe(*(words or QUICK))
        assert code == 0, err
        assert "is now" not in printed
    assert not out.with_name("out.1").exists()
    assert set(record(out)["methods"]) == {"knn", "lbfgs"}
    assert [row["labels_per_class"] for row in record(out)["low_data"]] == [4, 8]


def test_a_record_that_is_not_whole_is_moved_aside_and_not_lost(probe, out):
    (out / "low_data.json").unlink()
    before = (out / "probe.json").read_bytes()
    assert probe(*QUICK)[0] == 0
    assert (out.with_name("out.1") / "probe.json").read_bytes() == before


def test_a_probe_that_fails_or_is_killed_between_two_methods_goes_on_there_and_finds_the_same(
    digits_run, igpt, tmp_path
):
    words = ["probe", "--ckpt", digits_run.checkpoint, "--layers", 1, "--method", "knn,sgd,lbfgs", "--epochs", 1,
             "--labels-per-class", 4, "--subsets", 2, "--store", tmp_path / "store", "--out"]  # fmt: skip
    assert igpt(*words, tmp_path / "whole")[0] == 0
    state = tmp_path / "parts" / "sgd" / "layers_1" / "sgd.ckpt"
    state.parent.mkdir(parents=True)
    state.write_text("damaged")
    code, _, err = igpt(*words, tmp_path / "parts")
    assert (code, str(state) in err) == (2, True)
    assert list(record(tmp_path / "parts")["methods"]) == ["knn"]
    state.unlink()
    code, printed, err = igpt(*words, tmp_path / "parts")
    assert code == 0, err
    assert f"kept knn: {tmp_path / 'parts' / 'probe.json'}" in printed
    assert [line.split(":")[0] for line in printed.splitlines() if line.endswith(" s")][:-1] == ["sgd", "lbfgs"]
    whole, parts = record(tmp_path / "whole"), record(tmp_path / "parts")
    assert list(parts["methods"]) == ["knn", "sgd", "lbfgs"]
    assert {key for key in whole if whole[key] != parts[key]} == {"command"}
    for name in RESULTS:
        if name != "probe.json":
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_probe_that_has_everything_measures_nothing_and_needs_no_features(probe, out):
    before = record(out)
    shutil.rmtree(out / "features")
    code, printed, err = probe(*QUICK, "--labels-per-class", 4, "--subsets", 2)
    assert code == 0, err
    assert "kept 4 labels a class, knn: " in printed
    assert "knn: best layer 1" in printed
    assert not (out / "features").exists()
    assert {key for key, value in record(out).items() if value != before[key]} == {"command", "earlier_commands"}


def yours(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[1, 2]" if path.suffix == ".json" else "layer of paint")


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a record"])
@pytest.mark.parametrize("name", RESULTS)
def test_a_file_of_yours_with_the_name_of_a_result_is_never_touched(probe, out, name, beside):
    if not beside:
        shutil.rmtree(out)
    yours(out / name)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code, _, err = probe(*QUICK, "--norm", "raw")
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{out / name} is not of this command and would be lost" in err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_files_of_yours_in_the_folder_of_features_keep_it_from_being_replaced(probe, out):
    yours(out / "features" / "notes.txt")
    code, _, err = probe(*QUICK, "--norm", "raw")
    assert (code, err.count("\n")) == (2, 1), err
    assert "features/notes.txt is not of this command" in err
    assert (out / "features" / "notes.txt").exists()


def test_of_a_folder_called_sgd_only_the_state_of_the_probe_is_removed(probe, out):
    yours(out / "sgd" / "notes.txt")
    yours(out / "sgd" / "layers_0" / "mine.ckpt")
    code, _, err = probe("--layers", 1, "--method", "sgd", "--epochs", 1)
    assert code == 0, err
    assert sorted(path.name for path in (out / "sgd").rglob("*")) == ["layers_0", "mine.ckpt", "notes.txt"]
    assert "sgd" in record(out)["methods"]


def test_prediction_never_replaces_a_folder_of_yours_called_features(digits_run, igpt, tmp_path):
    shutil.copytree(digits_run.folder, tmp_path / "mini", symlinks=True)
    features = tmp_path / "mini" / "features"
    shutil.rmtree(features, ignore_errors=True)
    yours(features / "mine.npy")
    words = ["predict", "--config", digits_run.config, "--runs_dir", tmp_path, "--ckpt_path", "last"]
    code, _, err = igpt(*words)
    assert (code, err.count("\n")) == (2, 1), err
    lost = features / "mine.npy"
    assert f"{lost} is not of this command and would be lost; move it away, or give another --name" in err
    assert [path.name for path in features.iterdir()] == ["mine.npy"]


def refused_while_held(igpt, target, words, instead):
    """The command is refused in one line while another process holds its target, and leaves nothing behind."""
    place = Path(target)
    there = sorted(place.parent.iterdir())
    with only_writer(target, "wait"):
        code, printed, err = igpt(*words)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"another igpt writes to {target}" in err
    assert instead in err
    assert "best layer" not in printed
    assert sorted(place.parent.iterdir()) == there


def test_of_two_probes_into_one_folder_or_store_the_second_is_refused(digits_run, igpt, tmp_path):
    words = ["probe", "--ckpt", digits_run.checkpoint, *QUICK, "--out", tmp_path / "p"]
    refused_while_held(igpt, tmp_path / "p", words, "give another --out")
    refused_while_held(igpt, tmp_path / "s", [*words, "--store", tmp_path / "s"], "give another --store")


def test_of_two_predictions_into_one_run_the_second_is_refused(digits_run, igpt, tmp_path):
    shutil.copytree(digits_run.folder, tmp_path / "mini", symlinks=True)
    words = ["predict", "--config", digits_run.config, "--runs_dir", tmp_path, "--ckpt_path", "last"]
    refused_while_held(igpt, tmp_path / "mini" / "features", words, "give another --name")


def test_a_store_that_is_finished_serves_any_number_of_probes_at_once(digits_run, igpt, out, tmp_path):
    words = ["probe", "--ckpt", digits_run.checkpoint, *QUICK, "--store", out / "features", "--out", tmp_path / "p"]
    with only_writer(out / "features", "wait"):
        code, printed, err = igpt(*words)
    assert code == 0, err
    assert "reused" in printed


def test_a_link_that_leads_elsewhere_during_the_work_changes_nothing_about_what_is_recorded(
    digits_run, igpt, tmp_path, monkeypatch
):
    folder = shutil.copytree(digits_run.folder / "checkpoints", tmp_path / "checkpoints", symlinks=True)
    link = folder / "last.ckpt"
    loaded, other = sha256_of(link), folder / "step=0000020.ckpt"

    def moved(data, model):
        link.unlink()
        link.symlink_to(other.name)
        return data_to_probe(data, model)

    monkeypatch.setattr("igpt.commands.probe.data_to_probe", moved)
    code, _, err = igpt("probe", "--ckpt", link, *QUICK, "--store", tmp_path / "store", "--out", tmp_path / "out")
    assert code == 0, err
    assert sha256_of(link) == sha256_of(other) != loaded
    assert record(tmp_path / "out")["checkpoint_sha256"] == loaded
    assert loaded in "".join(path.read_text() for path in (tmp_path / "store").glob("*.json"))
