"""`igpt curate`: what is found among planted copies, that a kill loses nothing, and what takes the manifest."""

import csv
import json
import re
import shutil
import signal
import time

import pytest

from igpt.curation.blocks import Blocks
from igpt_datamodules import WebImages
from tests import forked
from tests.datamodules.pictures import class_tree


def options(web, out, *more):
    given = ["--data", "WebImages", "--data.root", web / "web", "--data.split.val_share", 0.1]
    given += ["--reference", "ImageFolder", "--reference.root", web / "ref", "--workers", 0, "--block", 100]
    return ["curate", *given, "--out", out, *more]


def original(name):
    return re.search(r"(\d{3})(_\w+)?\.png$", name)[1]


@pytest.fixture(scope="module")
def done(web):
    from igpt.cli import main

    out = web / "m.json"
    assert main([str(word) for word in options(web, out)]) == 0
    return out


def test_planted_copies_are_found_at_recall_and_precision_0_95(done, patches):
    rows = json.loads(done.read_text())
    assert len(rows) == 4 * len(patches)
    dropped = [row for row in rows if row["reason"].startswith(("duplicate", "overlaps"))]
    right = [row for row in dropped if original(row["file"]) == original(row["reason"])]
    planted = 3 * len(patches) + len(patches) // 10  # three of each, and of those in the test set the fourth, too
    assert len(right) >= 0.95 * planted
    assert len(right) >= 0.95 * len(dropped)


def test_nothing_of_the_test_set_is_kept_and_the_kept_half_is_the_nearest(done):
    rows = json.loads(done.read_text())
    assert not [row for row in rows if row["kept"] and int(original(row["file"])) % 10 == 9]
    kept = [row["distance"] for row in rows if row["kept"]]
    far = [row["distance"] for row in rows if row["reason"].startswith("far")]
    assert abs(len(kept) - len(far)) <= 1
    assert max(kept) <= min(far)


def test_a_kill_after_any_block_loses_no_block_and_changes_no_byte(done, web, igpt, monkeypatch, tmp_path):
    write, out, written = Blocks._write, tmp_path / "m.json", []

    def killed(self, target, values):
        if len(written) in (2, 6, 9):
            written.append("killed")
            raise KeyboardInterrupt
        write(self, target, values)
        written.append(target.name)

    monkeypatch.setattr(Blocks, "_write", killed)
    for _ in range(3):
        assert igpt(*options(web, out))[0] != 0
        assert not out.exists()
    assert igpt(*options(web, out))[0] == 0
    names = [name for name in written if name != "killed"]
    assert len(names) == len(set(names))  # no block twice
    assert out.read_bytes() == done.read_bytes()


@pytest.mark.parametrize("blocks", [2, 7, 10])  # while embedding, while comparing, and near the end
def test_sigkill_loses_nothing_and_changes_no_byte(done, web, igpt, tmp_path, blocks):
    out, work = tmp_path / "m.json", tmp_path / "m.work"
    with forked.igpt(*options(web, out)) as process:
        while process.poll() is None and len(list(work.glob("*.npy"))) < blocks:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert igpt(*options(web, out))[0] == 0
    assert out.read_bytes() == done.read_bytes()


def test_what_is_kept_becomes_a_palette_shards_and_a_network(done, web, igpt, tmp_path):
    data = ["--data", "WebImages", "--data.root", web / "web", "--data.manifest", done, "--data.resolution", 8]
    palette, shards = tmp_path / "p.npy", tmp_path / "shards"
    assert igpt("palette", *data, "--colors", 8, "--out", palette)[0] == 0
    assert igpt("tokenize", *data, "--palette", palette, "--out", shards, "--workers", 1)[0] == 0
    kept = sum(row["kept"] for row in json.loads(done.read_text()))
    assert sum(json.loads((shards / "index.json").read_text())["images"].values()) == kept
    config = tmp_path / "c.yaml"
    config.write_text(f"""
model: {{class_path: igpt.modules.Autoregressive, init_args: {{palette: '{palette}', transformer: {{
  n_layers: 1, d_model: 16, n_heads: 2, n_positions: 64, vocab_size: 8}}}}}}
data: {{class_path: igpt_datamodules.TokenShards, init_args: {{folder: '{shards}', batch_size: 16}}}}
trainer: {{max_steps: 2, precision: 32-true, enable_progress_bar: false, accelerator: cpu, log_every_n_steps: 1}}
samples: {{num: 0, completions: 0}}
""")
    code, _, err = igpt("fit", "--config", config, "--runs_dir", tmp_path / "runs")
    assert code == 0, err
    assert (tmp_path / "runs" / "c" / "checkpoints" / "last.ckpt").exists()


def test_a_changed_file_is_embedded_again_and_its_block_alone(done, web, igpt, monkeypatch, tmp_path):
    shutil.copytree(web / "web", tmp_path / "web")
    given = ["curate", "--data", "WebImages", "--data.root", tmp_path / "web", "--workers", 0, "--block", 100]
    given += ["--out", tmp_path / "m.jsonl"]
    assert igpt(*given)[0] == 0
    write, written = Blocks._write, []
    monkeypatch.setattr(
        Blocks, "_write", lambda self, target, values: (written.append(target.name), write(self, target, values))
    )
    shutil.copy(web / "web" / "000_0.png", tmp_path / "web" / "119_0.png")
    assert igpt(*given)[0] == 0
    assert len([name for name in written if name.startswith("data-")]) == 1
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    changed = next(row for row in rows if row["file"] == "119_0.png")
    assert not changed["kept"]
    assert original(changed["reason"]) == "000"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_web_images_takes_what_is_kept(done, web, igpt, suffix, tmp_path):
    out = tmp_path / f"m.{suffix}"
    shutil.copytree(done.with_suffix(".work"), out.with_suffix(".work"))  # nothing is embedded anew
    assert igpt(*options(web, out, "--within", 0.5))[0] == 0
    text = out.read_text().splitlines()
    rows = list(csv.DictReader(text)) if suffix == "csv" else [json.loads(line) for line in text]
    kept = {row["file"] for row in rows if row["kept"] in (True, "1")}
    assert kept == {row["file"] for row in rows if not row["reason"]}
    data = WebImages(root=str(web / "web"), manifest=str(out))
    data.prepare_data()
    assert data.total() == len(kept)
    assert WebImages(root=str(web / "web")).spec()["init_args"].get("manifest", "none") == "none"


def test_a_dry_run_says_what_the_run_then_takes_and_leaves_nothing(done, web, igpt, tmp_path):
    before = time.process_time()
    code, out, err = igpt(*options(web, tmp_path / "m.json", "--dry-run"))
    taken = time.process_time() - before
    assert code == 0, err
    assert not list(tmp_path.iterdir())
    images = len(json.loads(done.read_text()))
    assert out.startswith(f"{images:,} images, ")
    disk, hours = float(re.search(r"disk: ([\d.]+) MiB", out)[1]), float(re.search(r"time: (\S+) CPU hours", out)[1])
    held = sum(file.stat().st_size for file in done.with_suffix(".work").glob("*.npy")) / 2**20
    assert held / 1.5 < disk < held * 1.5
    assert taken / 20 < hours * 3600 < taken * images / 256  # the sample of 512 went the whole way


def test_bad_input_is_one_line(web, igpt, tmp_path):
    def refused(words, *named):
        code, _, err = igpt(*words)
        assert code == 2
        assert err.count("\n") == 1
        assert all(name in err for name in named), err

    out = tmp_path / "m.json"
    (tmp_path / "none").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(web / "web" / "000_0.png", tmp_path / "one")
    for folder in ("none", "one"):
        refused(
            ["curate", "--data", "WebImages", "--data.root", tmp_path / folder, "--out", out, "--workers", 0],
            folder if folder == "none" else "test_share",
        )
    refused(options(web, out, "--reference.root", tmp_path / "none"), "none")
    refused(options(web, tmp_path / "m.txt"), "--out")
    refused(options(web, out, "--keep", 0.5, "--within", 1), "--within")
    refused(options(web, out, "--keep", 0), "--keep")
    refused(options(web, out, "--layer", "x"), "--source")
    refused(options(web, out, "--reference.resolution", 16), "--reference")
    out.write_text("mine")
    refused(options(web, out), "m.json")
    assert out.read_text() == "mine"
    refused(["check", "--data", "WebImages", "--data.root", web / "web", "--data.manifest", out], "manifest")


def test_images_that_are_all_test_images_are_all_dropped(tmp_path, igpt):
    class_tree(tmp_path / "ref" / "train", {"a": 12, "b": 12})
    class_tree(tmp_path / "ref" / "test", {"a": 4, "b": 4})
    class_tree(tmp_path / "web", {"here": 12})  # of the same picture
    code, out, err = igpt(*options(tmp_path, tmp_path / "m.json"))
    assert code == 0, err
    assert "kept 0 of 12" in out + err
    rows = json.loads((tmp_path / "m.json").read_text())
    assert {row["reason"].split(" ")[0] for row in rows} == {"overlaps"}
