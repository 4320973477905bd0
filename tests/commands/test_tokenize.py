import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from igpt.data import SPLITS, rng_of
from igpt.palette.palette import Palette
from igpt.system.errors import UserError
from igpt.system.locks import only_writer
from igpt.tokenization.engines import run_here
from igpt.tokenization.output import index_of
from igpt.tokenization.tasks import UNFINISHED, Job, plan_of, tasks_of
from igpt.tokenization.writing import kind_of
from igpt_datamodules import Digits, ImageFolder, TokenShards
from igpt_datamodules.files import Stored
from tests import forked
from tests.conftest import REPO
from tests.datamodules.pictures import encoded, picture

PALETTE = REPO / "palettes" / "digits.npy"
DIGITS = ["tokenize", "--data", "Digits", "--palette", PALETTE]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The digits in shards of 20, in one go and one process."""
    from igpt.cli import main

    out = tmp_path_factory.mktemp("whole") / "shards"
    command = [*DIGITS, "--out", out, "--shard_images", 20, "--workers", 1]
    assert main([str(word) for word in command]) == 0
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of 20 training and 5 test pictures, which ImageFolder trains on in random crops."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 20), ("test", 5)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                path = root / split / label / f"{index}.png"
                path.write_bytes(encoded(picture(count + 100 * index + len(label), (48, 40)), "PNG"))
    return root


def folder_options(root, *more):
    return [
        "tokenize",
        "--data",
        "ImageFolder",
        "--data.root",
        root,
        "--data.resolution",
        6,
        "--palette",
        PALETTE,
        *more,
    ]


def stored(folder, split):
    """Tokens `(N, V, T)` and labels of a split, read by NumPy alone."""
    records = [np.load(path)[0] for path in sorted(folder.glob(f"{split}-*.npy"))]
    return np.concatenate([one["tokens"] for one in records]), np.concatenate([one["labels"] for one in records])


def test_shards_hold_the_tokens_and_labels_of_every_image_in_order(whole):
    data, palette = Digits(), Palette.load(PALETTE)
    for split in SPLITS:
        tokens, labels = stored(whole, split)
        images = torch.cat([images for images, _ in data.loader(split)])
        np.testing.assert_array_equal(tokens[:, 0], palette.encode(images).numpy())
        np.testing.assert_array_equal(labels, torch.as_tensor(data.images(split).labels).numpy())
    index = json.loads((whole / "index.json").read_text())
    assert index["palette"]["sha256"] == palette.sha256
    assert index["images"] == {"train": 1294, "val": 144, "test": 359}
    assert index["class_names"] == list("0123456789")
    assert sorted(os.listdir(whole)) == sorted(
        ["index.json", *(one["file"] for split in SPLITS for one in index["shards"][split])]
    )


def test_two_processes_write_the_same_bytes_as_one(whole, igpt, tmp_path):
    code, out, err = igpt(*DIGITS, "--out", tmp_path / "two", "--shard_images", 20, "--workers", 2)
    assert (code, err) == (0, "")
    assert "1,294 train, 144 val, 359 test" in out
    assert contents(tmp_path / "two") == contents(whole)


def children_of(pid):
    return [
        int(one) for one in subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True).stdout.split()
    ]


def runs(pid):
    """Whether a process still runs; one that has ended may wait for its end to be noticed."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(whole, igpt, tmp_path):
    out = tmp_path / "killed"
    options = ["--out", str(out), "--shard_images", "20", "--workers", "2"]
    with forked.igpt(*DIGITS, *options) as run:
        deadline = time.monotonic() + 120
        while len(list(out.glob(".unfinished/train-*.json"))) < 10 and time.monotonic() < deadline:
            time.sleep(0.001)
        children = children_of(run.pid)
        run.send_signal(signal.SIGKILL)
    assert not (out / "index.json").exists()
    while any(map(runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, children))  # workers end with the run
    (out / ".unfinished" / "train-00001.abc").write_bytes(b"half a shard")
    left = len(list(out.glob(".unfinished/*.npy.json")))
    code, told, err = igpt(*DIGITS, *options)
    assert code == 0, err
    assert 10 <= left < 91
    assert f"going on after {left} of 91 shards" in told
    assert contents(out) == contents(whole)


def test_workers_leave_interrupts_to_the_main_process(whole, tmp_path):
    """Ctrl-C reaches all processes of a terminal at once; here it reaches the workers alone, which go on."""
    job = Job(Digits(), Palette.load(PALETTE), str(tmp_path), 0, 0)
    (tmp_path / UNFINISHED).mkdir()
    tasks, others = tasks_of(job, 20), set(multiprocessing.active_children())
    running = run_here(job, tasks, 2)
    records = list(itertools.islice(running, 20))
    workers = set(multiprocessing.active_children()) - others
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    try:
        records += running
    except KeyboardInterrupt:  # a worker's, which would end all tests
        pytest.fail("a worker was interrupted")
    assert len(workers) == 2
    assert {record.task for record in records} == set(tasks)


def test_a_finished_folder_is_left_alone_and_another_is_never_overwritten(whole, igpt, tmp_path):
    before = contents(whole)
    code, out, _ = igpt(*DIGITS, "--out", whole, "--shard_images", 20)
    assert (code, "nothing to do" in out) == (0, True)
    code, _, err = igpt(*DIGITS, "--out", whole, "--shard_images", 30)
    assert (code, err.count("\n")) == (2, 1)
    assert "other data or options" in err
    assert contents(whole) == before
    (tmp_path / "mine.txt").write_text("kept")
    code, _, err = igpt(*DIGITS, "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds other files" in err
    assert contents(tmp_path) == {"mine.txt": b"kept"}


def test_shards_whose_records_lie_are_written_again(whole, igpt, tmp_path):
    """As after a kill before the index was written: one shard then lost its end, two records say something else."""
    out = tmp_path / "out"
    code, _, err = igpt(*DIGITS, "--out", out, "--shard_images", 700, "--workers", 1)
    assert code == 0, err
    good = contents(out)
    index = json.loads((out / "index.json").read_text())
    (out / ".unfinished").mkdir()
    (out / ".unfinished" / "plan.json").write_text(json.dumps(index["source"]))
    for split in SPLITS:
        for number, shard in enumerate(index["shards"][split]):
            start = 700 * number
            task = {"split": split, "number": number, "start": start, "stop": start + shard["images"]}
            record = {"task": task, "shard": shard, "skipped": []}
            (out / ".unfinished" / f"{shard['file']}.json").write_text(json.dumps(record))
    (out / "index.json").unlink()
    (out / "train-00001.npy").write_bytes(good["train-00001.npy"][:-5])
    for name, honest, lie in (("val", '"images": 144', '"images": 145'), ("test", '"file": "', '"file": "../')):
        path = out / ".unfinished" / f"{name}-00000.npy.json"
        assert honest in path.read_text()
        path.write_text(path.read_text().replace(honest, lie))
    code, told, err = igpt(*DIGITS, "--out", out, "--shard_images", 700, "--workers", 1)
    assert code == 0, err
    assert "going on after 1 of 4 shards" in told
    assert contents(out) == good


def test_variants_are_the_data_modules_own_random_crops(pictures, igpt, tmp_path):
    options = ["--out", tmp_path / "crops", "--variants", 3, "--seed", 5, "--workers", 1]
    code, _, err = igpt(*folder_options(pictures, *options))
    assert code == 0, err
    data, palette = ImageFolder(root=str(pictures), resolution=6), Palette.load(PALETTE)
    train = data.images("train")
    tokens, labels = stored(tmp_path / "crops", "train")
    assert tokens.shape == (36, 4, 36)
    for index in range(36):
        views = [train[index][0], *(train.draw(index, rng_of(5, variant, index))[0] for variant in range(3))]
        np.testing.assert_array_equal(tokens[index], palette.encode(torch.stack(views)).numpy())
        assert labels[index] == train[index][1]
    assert stored(tmp_path / "crops", "test")[0].shape == (10, 1, 36)
    shards = TokenShards(folder=str(tmp_path / "crops"))
    drawn = [shards.images("train").draw(7, rng_of(0, epoch, 7))[0] for epoch in range(40)]
    found = {palette.encode(image[None]).numpy().tobytes() for image in drawn}
    assert found == {tokens[7, view].astype(np.int64).tobytes() for view in (1, 2, 3)}  # and never the centre
    np.testing.assert_array_equal(palette.encode(shards.images("train")[7][0][None])[0], tokens[7, 0])


def test_broken_images_are_skipped_and_listed_and_too_many_are_an_error(pictures, igpt, tmp_path):
    root = shutil.copytree(pictures, tmp_path / "pictures")
    broken = root / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    code, _, err = igpt(*folder_options(root, "--out", tmp_path / "out", "--workers", 1, "--max_bad_share", 0.01))
    assert (code, err.count("\n")) == (2, 1)
    assert "1 images cannot be read" in err
    assert "cat/3.png" in err
    assert not (tmp_path / "out" / "index.json").exists()
    code, out, err = igpt(*folder_options(root, "--out", tmp_path / "out", "--workers", 1))
    assert code == 0, err
    assert "1 skipped" in out
    (image, reason), *more = json.loads((tmp_path / "out" / "index.json").read_text())["skipped"]
    assert not more
    assert "cat/3.png: truncated" in reason
    split, index = image.split()
    data, palette = ImageFolder(root=str(root), resolution=6), Palette.load(PALETTE)
    kept = [one for one in range(data.size(split)) if one != int(index)]
    tokens, labels = stored(tmp_path / "out", split)
    images = torch.stack([data.images(split)[one][0] for one in kept])
    np.testing.assert_array_equal(tokens[:, 0], palette.encode(images).numpy())
    assert labels.tolist() == [data.images(split)[one][1] for one in kept]


def test_images_that_were_mended_after_a_refusal_are_read(pictures, igpt, tmp_path):
    """Also where records come after the refusal, and where the images that tell data apart were broken themselves."""
    root = shutil.copytree(pictures, tmp_path / "pictures")
    options = ["--shard_images", 3, "--max_bad_share", 0.02]
    code, _, err = igpt(*folder_options(root, "--out", tmp_path / "whole", *options, "--workers", 1))
    assert code == 0, err
    files = [*sorted((root / "train").rglob("*.png")), *sorted((root / "test").rglob("*.png"))[:2]]
    good = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(good[path][:200])
    out = tmp_path / "out"
    code, _, err = igpt(*folder_options(root, "--out", out, *options, "--workers", 2))
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be read, more than --max_bad_share allows" in err
    job = Job(ImageFolder(root=str(root), resolution=6), Palette.load(PALETTE), str(out), 0, 0)
    assert sum(len(job.run(task).skipped) for task in tasks_of(job, 3)) == len(files)  # by workers that are late
    for path in files:
        path.write_bytes(good[path])
    code, told, err = igpt(*folder_options(root, "--out", out, *options, "--workers", 1))
    assert code == 0, err
    assert "skipped" not in told
    assert contents(out) == contents(tmp_path / "whole")


def test_a_split_without_a_readable_image_is_read_anew_once_it_is_mended(pictures, igpt, tmp_path):
    root = shutil.copytree(pictures, tmp_path / "pictures")
    files = list((root / "test").rglob("*.png"))
    good = {path: path.read_bytes() for path in files}
    command = folder_options(root, "--out", tmp_path / "out", "--max_bad_share", 1, "--workers", 1)
    for path in files:
        path.write_bytes(b"")
    code, _, err = igpt(*command)
    assert code == 2
    assert "no image of the test split can be read" in err
    for path in files:
        path.write_bytes(good[path])
    code, told, err = igpt(*command)
    assert code == 0, err
    assert "skipped" not in told
    assert stored(tmp_path / "out", "test")[0].shape == (10, 1, 36)


def test_shards_of_data_that_changed_are_never_mixed(pictures, igpt, tmp_path):
    """Other pixels under the same name are noticed where the image is one of the sixteen that are looked at."""
    root = shutil.copytree(pictures, tmp_path / "pictures")
    command = folder_options(root, "--out", tmp_path / "out", "--shard_images", 5, "--workers", 1)
    code, _, err = igpt(*command)
    assert code == 0, err
    assert "nothing to do" in igpt(*command)[1]
    before = contents(tmp_path / "out")
    first = root / "test" / "cat" / "0.png"  # index 0 is among them
    first.write_bytes(encoded(picture(999, (48, 40)), "PNG"))
    code, _, err = igpt(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "other data or options" in err
    (root / "train" / "cat" / "extra.png").write_bytes(first.read_bytes())
    shutil.copy(pictures / "test" / "cat" / "0.png", first)
    code, _, err = igpt(*command)
    assert code == 2
    assert "other data or options" in err
    assert contents(tmp_path / "out") == before


def test_no_index_is_written_for_shards_that_are_not_there(tmp_path):
    """As where a worker of a cluster writes to a folder of the same name on a disk of its own."""
    job = Job(Digits(), Palette.load(PALETTE), str(tmp_path), 0, 0)
    (tmp_path / UNFINISHED).mkdir()
    records = [job.run(task) for task in tasks_of(job, None)]
    kind = kind_of(job.palette)
    assert index_of(job, plan_of(job, None), kind, records).shards["val"][0].images == 144
    (tmp_path / "val-00000.npy").unlink()
    with pytest.raises(UserError, match=r"val-00000\.npy is missing"):
        index_of(job, plan_of(job, None), kind, records)


def test_what_is_said_about_a_damaged_folder_mends_it(whole, igpt, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    command = [*DIGITS, "--out", out, "--shard_images", 20, "--workers", 1]
    for name, content in (("val-00001.npy", b""), ("index.json", b"{}")):
        (out / name).write_bytes(content)
        code, _, err = igpt(*command)
        assert (code, err.count("\n")) == (2, 1)
        assert "delete the folder and run 'igpt tokenize' again" in err
        shutil.rmtree(out)
        code, _, err = igpt(*command)
        assert code == 0, err
        assert contents(out) == contents(whole)


def test_web_images_are_read_once_where_their_check_is_left_to_tokenize(igpt, tmp_path, monkeypatch):
    opened, really = [], Stored.open
    monkeypatch.setattr(Stored, "open", lambda stored: opened.append(stored.name) or really(stored))
    for index in range(40):
        (tmp_path / "web" / f"{index % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / f"{index % 3}" / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))
    (tmp_path / "web" / "0" / "0.png").write_bytes(b"")
    web = ["tokenize", "--data", "WebImages", "--data.root", tmp_path / "web", "--data.resolution", 4]
    web += ["--data.split.val_share", 0.1, "--data.test_share", 0.1, "--palette", PALETTE, "--workers", 1]
    reads = {}
    for check in ("true", "false"):
        opened.clear()
        code, out, err = igpt(*web, "--data.check", check, "--out", tmp_path / check)
        assert code == 0, err
        reads[check] = len(opened)
        index = json.loads((tmp_path / check / "index.json").read_text())
        assert "1 skipped" in out
        assert sum(index["images"].values()) == 39
        assert "0.png" in " ".join(index["skipped"][0])
        assert "zero bytes" in " ".join(index["skipped"][0])
    # The check reads all 40, and the broken one nobody after it; without a check the data's identity may look at it.
    assert reads["true"] - reads["false"] in (38, 39)


def test_of_two_that_write_one_folder_the_second_is_refused(igpt, tmp_path):
    with only_writer(tmp_path / "out", "wait"):
        code, _, err = igpt(*DIGITS, "--out", tmp_path / "out", "--workers", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "another igpt writes to" in err
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_folder_of_the_unfinished_ones_name_is_left_alone(whole, igpt, tmp_path):
    shutil.copytree(whole, tmp_path / "whole")
    for folder, code in ((tmp_path / "whole", 0), (tmp_path / "new", 2)):
        notes = folder / UNFINISHED / "notes.txt"
        notes.parent.mkdir(parents=True)
        notes.write_text("mine")
        found, _, err = igpt(*DIGITS, "--out", folder, "--shard_images", 20, "--workers", 1)
        assert found == code, err
        assert notes.read_text() == "mine"
        assert code == 0 or (len(err.splitlines()) == 1 and "notes.txt" in err and "--out" in err)
