"""`igpt scale`: with a stand-in for the commands where only their order matters, and with the real ones."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import igpt.commands.after.scale_runs as command
from igpt.cli import main
from tests.conftest import REPO

VERBS = ("fit", "probe", "evaluate")
SMALL = ["--budgets", "2", "--sizes", "4", "--smallest", "1e9", "--largest", "2e9", "--ratios", "5", "200"]
WIDTH = "model.init_args.transformer.d_model"
HEADS = ["--overrides", "[model.init_args.transformer.n_heads=24]"]


def option(words, name):
    return words[words.index(f"--{name}") + 1]


class StandIn:
    """Instead of a command, writes what it would; the loss of a size is that of a law. Can break off like a kill."""

    def __init__(self, breaks_at=None):
        self.breaks_at, self.done = breaks_at, []

    def __call__(self, words, log, place=None, threads=None):
        log.write_text("working\n")
        folder = Path(option(words, "runs_dir")) / option(words, "name") if words[0] == "fit" else Path(words[2])
        if [words[0], folder.name] == self.breaks_at:
            self.breaks_at = None
            return 137
        self.done.append([words[0], folder.name])
        if words[0] == "probe":
            rows = [{"layer": n, "val_accuracy": 0.5, "test_accuracy": 0.4 + n / 10} for n in range(2)]
            record = {"methods": {"lbfgs": {"best_layer": 1, "layers": rows}}}
            (folder / "probe").mkdir()
            (folder / "probe" / "probe.json").write_text(json.dumps(record))
            return 0
        if words[0] == "evaluate":
            space = {"source": option(words, "source"), "layer": 0, "layer_name": "pixels"}
            record = {"space": space, "figures": {"samples": {"images": 359, "frechet": 7.0 + len(self.done)}}}
            (folder / "evaluate").mkdir(exist_ok=True)
            (folder / "evaluate" / "evaluate.json").write_text(json.dumps(record))
            return 0
        steps, width = (
            int(option(words, "trainer.max_steps")),
            int(option(words, "model.init_args.transformer.d_model")),
        )
        folder.mkdir(parents=True, exist_ok=True)
        loss = 1 + 1 / width + 5 / steps
        (folder / "result.json").write_text(json.dumps({"val_loss": loss, "steps": steps, "stopped": None}))
        return 0


@pytest.fixture
def there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.yaml").write_text((REPO / "configs/digits_ar.yaml").read_text())
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch, there, request):
    fake = StandIn()
    if "once" not in request.node.name:  # a picture takes a second, and is looked at once
        monkeypatch.setattr(command, "draw", lambda path, *_: path.write_bytes(b""))
    monkeypatch.setattr(command, "attached", fake)
    return fake


def scale(igpt, *words):
    return igpt("scale", "--config", "digits.yaml", *HEADS, *SMALL, "--out", "s", *words)


def test_a_study_trains_probes_and_records_every_run_once(igpt, stand_in):
    code, out, err = scale(igpt)
    assert code == 0, err
    found = json.loads(Path("s/scale.json").read_text())
    names = [run["name"] for run in found["planned"]]
    assert stand_in.done == [[verb, name] for name in names for verb in VERBS]
    assert len(names) == len(set(names)) == 8
    assert [one["distance"] for one in found["results"]] == [7.0 + 3 * (n + 1) for n in range(8)]
    assert [one["test_accuracy"] for one in found["results"]] == [0.5] * 8
    assert {"loss", "accuracy", "distance"} == set(found["fits"])
    assert Path("s/scale.png").read_bytes().startswith(b"\x89PNG")
    assert Path("s/scale.md").read_text() in out
    assert scale(igpt)[0] == 0
    assert len(stand_in.done) == 24  # nothing was repeated


def test_a_study_that_was_cut_off_goes_on_with_the_run_that_was(igpt, stand_in):
    stand_in.breaks_at = ["probe", "c1_d12"]
    assert scale(igpt)[0] not in (0, 2)
    record = json.loads(Path("s/scale.json").read_text())
    assert [one["name"] for one in record["results"]] == ["c1_d4", "c1_d8"]
    assert scale(igpt)[0] == 0
    assert len(stand_in.done) == 24
    assert [one for one in stand_in.done if one[1] == "c1_d12"] == [[verb, "c1_d12"] for verb in VERBS]


def test_samples_of_a_study_that_is_done_are_judged_afterwards_and_no_run_is_repeated(igpt, stand_in):
    assert scale(igpt, "--num", "0")[0] == 0
    assert {"loss", "accuracy"} == set(json.loads(Path("s/scale.json").read_text())["fits"])
    for source, more in (("pixels", []), ("torchvision:resnet18", ["--weights", "random"])):
        before = len(stand_in.done)
        code, _, err = scale(igpt, "--source", source, *more)
        assert code == 0, err
        assert {verb for verb, _ in stand_in.done[before:]} == {"evaluate"}
        assert len(stand_in.done) == before + 8
        found = json.loads(Path("s/scale.json").read_text())
        assert found["samples"]["source"] == source
        assert found["results"][0]["distance"] == 7.0 + before + 1


def test_another_study_in_the_folder_is_left_alone(igpt, stand_in):
    assert scale(igpt)[0] == 0
    before = Path("s/scale.json").read_bytes()
    for words in (
        ["--largest", "3e9"],
        ["--rate", "width"],
        ["--overrides", "[model.init_args.transformer.n_heads=24, seed_everything=1]"],
    ):
        code, _, err = scale(igpt, *words)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "--out s holds" in err
    assert Path("s/scale.json").read_bytes() == before


def test_the_page_says_where_no_law_can_be_claimed(igpt, stand_in, monkeypatch):
    def falling(words, log, *_):
        code = StandIn()(words, log)
        if words[0] == "fit":
            path = Path(option(words, "runs_dir")) / option(words, "name") / "result.json"
            width = int(option(words, WIDTH))
            path.write_text(json.dumps({**json.loads(path.read_text()), "val_loss": 2 - width / 100}))
        return code

    monkeypatch.setattr(command, "attached", falling)
    assert scale(igpt)[0] == 0
    loss = Path("s/scale.md").read_text().split("## Accuracy")[0]
    assert "No law is claimed" in loss
    assert "grow as" not in loss


def test_the_plan_is_printed_with_hours_and_nothing_is_written(igpt, there):
    code, out, err = scale(igpt, "--dry-run", "--speed", "1e9")
    assert code == 0, err
    assert len([line for line in out.splitlines() if line.startswith("| c")]) == 8
    assert re.search(r"8 runs, \S+ FLOPs, 0\.03 hours", out)  # 12e9 operations at 1e9 a second, and 8 x 10 seconds
    assert "timed on cpu" in scale(igpt, "--dry-run")[1]
    assert not Path("s").exists()


def test_the_commands_are_those_of_the_study_and_what_gathers_them_finds_the_runs(igpt, stand_in):
    code, out, _ = scale(igpt, "--commands")
    assert code == 0
    *lines, last = out.splitlines()
    assert not Path("s").exists()
    Path("s").mkdir()
    for line in lines:
        for words in line.split(" && "):
            stand_in(shlex.split(words)[1:], Path("log"))
    assert igpt(*shlex.split(last)[1:])[0] == 0
    assert len(stand_in.done) == 24
    assert "fits" in json.loads(Path("s/scale.json").read_text())


def test_the_rate_can_fall_with_width(igpt, there):
    lines = scale(igpt, "--commands", "--rate", "width")[1].splitlines()[:-1]
    for line in lines:
        words = shlex.split(line.split(" && ")[0])
        rate, width = (
            float(option(words, f"model.init_args.{name}")) for name in ("learning_rate", "transformer.d_model")
        )
        assert rate * width == pytest.approx(0.001 * 96, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "1"], "--sizes 1: give at least 2 budgets and 4 sizes"),
        (["--budgets", "1"], "--budgets 1"),
        (["--smallest", "1e3"], "--smallest: a budget of 1e+03 operations allows only 0 sizes one step"),
        (["--smallest", "3e9"], "--smallest 3e+09 --largest 2e+09: give two numbers above 0"),
        (["--ratios", "200", "5"], "--ratios [200.0, 5.0]: give the fewest and the most"),
        (["--num", "3"], "--num 3: give at least 10 samples a run, or 0 for none"),
        (["--source", "nowhere"], "--source nowhere: there is no source of that name"),
        (["--workers", "0"], "--workers 0 must be at least 1"),
        (["--engine", "dask"], "--engine dask needs the address of its scheduler"),
        (["--speed", "0"], "--speed 0.0 must be above 0"),
        (["--overrides", "[model.class_path=igpt.modules.ByteAutoregressive]"], "is of ByteAutoregressive"),
        (["--overrides", "[data.init_args.batch_size=null]"], "has no data.init_args.batch_size"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(igpt, there, words, said):
    code, _, err = scale(igpt, *words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert said in err
    assert not Path("s").exists()


def test_a_folder_of_other_things_is_left_alone(igpt, there):
    Path("s").mkdir()
    Path("s/mine.txt").write_text("mine")
    code, _, err = scale(igpt)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "holds mine.txt, which is not of this study" in err


def test_a_config_of_bert_is_planned_with_the_operations_of_bert(igpt, there):
    Path("digits.yaml").write_text((REPO / "configs/digits/bert.yaml").read_text())
    code, out, err = scale(igpt, "--dry-run", "--speed", "1e9", "--largest", "4e9")
    assert code == 0, err
    assert len([line for line in out.splitlines() if line.startswith("| c")]) == 8


@pytest.mark.slow
def test_real_trainings_end_at_their_steps_and_are_fitted(igpt, there, monkeypatch):
    def here(words, log, *_):  # in this process, which has torch already
        code = main(words)
        log.write_text("")
        return code

    monkeypatch.setattr(command, "attached", here)
    code, _, err = scale(igpt, "--smallest", "4e8", "--largest", "6e8", "--ratios", "2", "60")
    assert code == 0, err
    found = json.loads(Path("s/scale.json").read_text())
    for run, result in zip(found["planned"], found["results"], strict=True):
        made = yaml.safe_load(Path("s", run["name"], "config.yaml").read_text())
        assert made["trainer"]["max_steps"] == run["steps"]
        assert made["model"]["init_args"]["transformer"]["d_model"] == run["d_model"]
        assert 0.5 < result["val_loss"] < 3
        assert 0 <= result["test_accuracy"] <= 1
        assert result["distance"] > 0
        assert not Path("s", run["name"], "probe", "features").exists()
