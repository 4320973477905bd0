import io
import tarfile
from collections import Counter

import pytest
import torch

from igpt.data import SplitOptions
from igpt.system.errors import UserError
from igpt.testing import check_data_module
from igpt_datamodules import WebImages
from tests.datamodules.pictures import bad_files, encoded, odd_files, picture, unreadable_folder

SPLITS = ("train", "val", "test")


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def names(data):
    images = data.images("test").stored, data.images("train").base.stored
    return sorted(stored.name for part in images for stored in part)


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """2,000 files, 3 % of them broken or odd (each of the eight kinds), a quarter of them inside two tars."""
    root = tmp_path_factory.mktemp("web")
    good = [encoded(picture(seed, (28 + seed % 40, 30))) for seed in range(40)]
    broken, odd = bad_files(), odd_files()
    files = {f"{i % 7}/{i}.jpg": good[i % 40] for i in range(1940)}
    for i in range(32):
        files[f"{i % 7}/bad{i}.jpg"] = list(broken.values())[i % 4]
    for i in range(28):
        name = list(odd)[i % 4]
        files[f"{i % 7}/odd{i}_{name}"] = odd[name]
    assert len(files) == 2_000
    inside = dict(list(files.items())[::4])
    for half in (0, 1):
        write_tar(root / f"shard-{half}.tar", dict(list(inside.items())[half::2]) | {"0.json": b"{}"})
    for name in files.keys() - inside.keys():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(files[name])
    return root


def test_a_web_tree_with_broken_files_keeps_the_contract_and_skips_only_those_without_a_picture(web, capsys, tmp_path):
    report = tmp_path / "deep" / "skipped.tsv"
    data = WebImages(root=str(web), batch_size=16, report=str(report))
    data.prepare_data()
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "1,968 images; 32 skipped: 8 decompression bomb, 8 not an image, 8 truncated, 8 zero bytes" in line
    kinds = list(bad_files())
    for path, reason in data.skipped:
        number = int(path.rpartition("bad")[2].removesuffix(".jpg"))
        assert reason.startswith(kinds[number % 4])
    assert Counter(".tar:" in path for path, _ in data.skipped) == {False: 24, True: 8}
    assert report.read_text().splitlines() == [f"{path}\t{reason}" for path, reason in data.skipped]
    # 5 % of 1,968 test, 5 % of the rest validate
    assert [data.size(name) for name in SPLITS] == [1_776, 94, 98]
    assert len(set(names(data))) == 1_968


def test_web_images_keep_the_contract(tmp_path):
    for index in range(60):
        (tmp_path / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))
    check_data_module(lambda: WebImages(root=str(tmp_path), batch_size=8))
    loader = WebImages(root=str(tmp_path), batch_size=8).train_dataloader()
    passes = [{image.numpy().tobytes() for images, _ in loader for image in images} for _ in range(2)]
    assert len(passes[0] | passes[1]) <= 54  # no augmentation: only so many different images


def test_the_real_command_trains_on_web_images(web, igpt, tmp_path):
    data = f"{{class_path: igpt_datamodules.WebImages, init_args: {{root: {web}, resolution: 4, batch_size: 4}}}}"
    palette, config = tmp_path / "web.npy", tmp_path / "web.yaml"
    options = ["--data", "WebImages", "--data.root", web, "--data.resolution", 4]
    code, _, err = igpt("palette", *options, "--colors", 8, "--out", palette)
    assert code == 0, err
    config.write_text(
        f"""
model:
  class_path: igpt.modules.Autoregressive
  init_args:
    transformer: {{n_layers: 1, d_model: 8, n_heads: 2, n_positions: 16, vocab_size: 8}}
    palette: {palette}
data: {data}
trainer: {{max_steps: 3, limit_val_batches: 1, enable_progress_bar: false, accelerator: cpu, log_every_n_steps: 1}}
samples: {{num: 1, completions: 0}}
"""
    )
    code, out, err = igpt("fit", "--config", config, "--runs_dir", tmp_path / "runs")
    assert code == 0, err
    assert "32 skipped" in out
    assert "zero bytes" in out
    assert (tmp_path / "runs" / "web" / "checkpoints" / "last.ckpt").exists()


def test_names_inside_a_tar_are_only_names(tmp_path):
    root = tmp_path / "a" / "b"
    root.mkdir(parents=True)
    members = {name: encoded(picture(i)) for i, name in enumerate(["../up.jpg", "/tmp/igpt_abs.jpg", "x/../../y.jpg"])}
    write_tar(root / "evil.tar", members | {f"{i}.jpg": encoded(picture(i)) for i in range(9)} | {"new\nline.jpg": b""})
    with tarfile.open(root / "evil.tar", "a") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    data = WebImages(root=str(root), max_bad_share=0.1, split=SplitOptions(val_share=0.1), test_share=0.1)
    data.prepare_data()
    assert len(names(data)) == 12
    assert data.skipped == [
        (f"{root}/evil.tar:new?line.jpg", "zero bytes"),
        (f"{root}/evil.tar:link.jpg", "no plain file"),
    ]
    list(data.loader("train"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["evil.tar"]


def test_an_image_in_a_tar_is_the_image_itself(tmp_path):
    data = {f"{i}.png": encoded(picture(i, (32, 32)), "PNG") for i in range(20)}
    (tmp_path / "tar").mkdir()
    (tmp_path / "tree").mkdir()
    write_tar(tmp_path / "tar" / "0.tar", data)
    for name, content in data.items():
        (tmp_path / "tree" / name).write_bytes(content)
    both = [WebImages(root=str(tmp_path / kind), resolution=32, split={"val_share": 0.1}) for kind in ("tar", "tree")]
    pictures = [
        {image.numpy().tobytes() for name in SPLITS for images, _ in data.loader(name) for image in images}
        for data in both
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 20


def test_a_damaged_tar_gives_the_images_before_the_damage_and_is_listed(tmp_path):
    write_tar(tmp_path / "0.tar", {f"{i}.png": encoded(picture(i), "PNG") for i in range(40)})
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "1.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "2.tar.gz").write_bytes(b"")
    data = WebImages(root=str(tmp_path), max_bad_share=0.2, split=SplitOptions(val_share=0.1))
    data.prepare_data()
    reasons = dict(data.skipped)
    assert reasons[f"{tmp_path}/0.tar"].startswith("damaged tar")
    assert reasons[f"{tmp_path}/1.tar"].startswith("damaged tar")
    assert reasons[f"{tmp_path}/2.tar.gz"].startswith("compressed tar")
    assert 20 < len(names(data)) < 40


def test_more_bad_files_than_the_share_stop_with_the_first_few_named(tmp_path):
    for index in range(20):
        (tmp_path / f"{index}.jpg").write_bytes(b"" if index < 2 else encoded(picture(index)))
    with pytest.raises(UserError, match=r"2 skipped: 2 zero bytes; first: .*0\.jpg \(zero bytes\).*max_bad_share 0.05"):
        WebImages(root=str(tmp_path)).prepare_data()
    assert WebImages(root=str(tmp_path), max_bad_share=0.1, split={"val_share": 0.1}).size("train") > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"root": "nowhere"}, "nowhere"),
        ({"root": "."}, "has no images"),
        ({"test_share": 1.5}, "test_share"),
        ({"max_bad_share": -1.0}, "max_bad_share"),
        ({"split": {"labels_per_class": 4}}, "labels_per_class"),
    ],
)
def test_wrong_options_are_one_line(options, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=named) as error:
        WebImages(**options).prepare_data()
    assert "\n" not in str(error.value)


def test_looking_for_bad_files_in_other_processes_finds_the_same_and_draws_no_random_number(web):
    data = WebImages(root=str(web))
    state = torch.get_rng_state()
    data.prepare_data()
    assert torch.equal(torch.get_rng_state(), state)
    split = WebImages(root=str(web), num_workers=2)
    split.prepare_data()
    assert split.skipped == data.skipped


def test_a_folder_that_cannot_be_read_is_listed_as_skipped(tmp_path, monkeypatch):
    for index in range(40):
        (tmp_path / f"{index}.png").write_bytes(encoded(picture(index), "PNG"))
    unreadable_folder(tmp_path, monkeypatch)
    data = WebImages(root=str(tmp_path))
    data.prepare_data()
    assert len(names(data)) == 40
    [(path, reason)] = data.skipped
    assert path.startswith(f"{tmp_path}/aaa")
    assert reason == "folder cannot be read: File name too long"
