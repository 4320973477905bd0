"""Every record of a real run, broken in many ways: there is a page all the same, which names what it leaves out."""

import json
import random
import shutil
from contextlib import contextmanager

import pytest
import yaml

from igpt.cli import main
from igpt.report.findings import all_findings
from igpt.report.reading import gather
from igpt.report.tables import data_sets, likelihoods, missing, moved_aside, probes, summary
from tests.report.test_page import Reader

STRANGE = [None, "", "words", "\ud800", [], [[1]], {}, {"a": {}}, True, -1, 0.5, 1e308, 10**400, float("nan"), -(2**70)]


@pytest.fixture(scope="module")
def runs(digits_run, tmp_path_factory):
    """A real run with every record that there is, and a second one that stays whole."""
    home = tmp_path_factory.mktemp("runs")
    for name in ("whole", "broken"):
        shutil.copytree(digits_run.folder, home / name, symlinks=True)
    folder = home / "broken"
    given = ["--config", str(folder / "config.yaml"), "--runs_dir", str(home), "--name", "broken"]
    assert main(["test", *given, "--ckpt_path", "last"]) == 0
    assert main(["probe", "--ckpt", str(folder / "checkpoints" / "last.ckpt"), "--layers", "0,2"]) == 0
    shutil.copytree(folder / "probe", folder / "probe.1")
    return home


def places(content, path=()):
    """Where every value within stands."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


def change(content, dice):
    """The same with one value replaced by a strange one, or removed."""
    *path, key = dice.choice(list(places(content)))
    inside = content
    for step in path:
        inside = inside[step]
    if dice.random() < 0.3:
        del inside[key]
    else:
        inside[key] = dice.choice(STRANGE)
    return content


def harm(file, dice):
    """Break a file somewhere: in its bytes, or in a value where it is JSON or YAML."""
    content = file.read_bytes()
    file.unlink()
    way = dice.choice(["cut", "set", "insert"] + (["value"] * 6 if file.suffix in (".json", ".yaml") else []))
    if way == "value":
        data = json.loads(content) if file.suffix == ".json" else yaml.safe_load(content)
        changed = change(data, dice)
        file.write_text(json.dumps(changed) if file.suffix == ".json" else yaml.safe_dump(changed))
        return
    at = dice.randrange(len(content))
    noise = dice.randbytes(dice.randint(1, 9))
    rest = {"cut": b"", "set": noise + content[at + len(noise) :], "insert": noise + content[at:]}[way]
    file.write_bytes(content[:at] + rest)


def records(folder):
    """Every file of a run that a page is made from, without its checkpoints."""
    names = ("config.yaml", "scores.json", "probe/probe.json", "probe.1/probe.json", "commands.txt")
    return [*(folder / name for name in names), *sorted(folder.glob("events.out.tfevents.*"))]


@contextmanager
def broken(home, seed):
    """A run with one file broken, which is named, and in which way the seed says."""
    dice = random.Random(seed)
    file = dice.choice(records(home / "broken"))
    content = file.read_bytes()
    try:
        harm(file, dice)
        yield file
    finally:
        file.unlink()
        file.write_bytes(content)


@pytest.mark.parametrize("seed", range(0, 64, 8))
def test_a_record_that_is_broken_anywhere_is_left_out_alone_and_named(runs, seed):
    for one in range(seed, seed + 8):
        with broken(runs, one) as file:
            said = []
            run = gather(str(runs / "broken"), said.append)
        assert run.objective == "AR", one
        assert all(str(file) in line for line in said), (one, said)
        assert [finding.claim for finding in all_findings([run])], one
        tables = [summary([run]), data_sets([run]), moved_aside([run]), probes([run]), likelihoods([run])]
        assert all(table.rows for table in tables if table), one
        missing([run])


@pytest.mark.parametrize("seed", range(1000, 1004))
def test_there_is_a_page_of_all_the_rest_and_its_reader_and_the_caller_know_what_is_not_there(runs, igpt, seed):
    with broken(runs, seed) as file:
        code, _, err = igpt("report", runs / "broken", runs / "whole", "--out", runs / "report.html")
    assert code == 0, err
    text, beside = (runs / f"report.{kind}" for kind in ("html", "md"))
    page, written = Reader(text.read_text(encoding="utf-8")), beside.read_text(encoding="utf-8")
    assert {"broken", "whole"} <= {row[0] for row in page.rows if row}
    for line in err.splitlines():
        assert line.startswith("igpt: warning: left out: ")
        assert str(file) in line
        assert line.removeprefix("igpt: warning: left out: ") in "".join(page.text)
    assert ("Left out" in written) == bool(err)
