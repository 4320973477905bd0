"""Every command of README and docs works: each is run as it stands, at toy size, where the reader would run it."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from igpt.cli import VERBS
from igpt.commands.precheck import check_names
from tests.conftest import REPO
from tests.datamodules.conftest import cifar_files, cifar_root  # noqa: F401
from tests.datamodules.pictures import class_tree, picture
from tests.datamodules.vision_files import Files, fashion_mnist

PAGES = [REPO / "README.md", REPO / "configs" / "README.md", *sorted((REPO / "docs").glob("*.md"))]
SMALL = ["--model.init_args.transformer.n_layers=3", "--model.init_args.transformer.d_model=16"]
SMALL += ["--model.init_args.transformer.n_heads=2", "--data.init_args.batch_size=4"]
STEPS = [
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
]
WHOLE = r"--(config|ckpt|data)\b"  # without one of these a command in the text is a word about an option
QUICK = [*STEPS, "--trainer.accelerator=cpu", "--trainer.precision=32-true"]

# What stands in the text for something that the reader has, or that takes a machine of another kind.
ELSEWHERE = {
    "configs/imagenet/": "ImageNet",
    "data/imagenet": "ImageNet",
    "imagegpt-small": "released weights",
    "model.ckpt-1000000": "released weights",
    "gpt_s": "released weights",
    "xl/model.ckpt": "a model of several GPUs",
    "imagenet_ar_xl_64": "a model of several GPUs",
    "HOST": "a cluster",
    "mine.yaml": "a config of the reader's",
    "my.yaml": "a config of the reader's",
    "hub_cifar10": "a data set of the Hugging Face hub",
    "colours_and_edges": "a plug-in that tests/test_plugins.py installs",
    "ColourNoise": "a plug-in that tests/test_plugins.py installs",
}


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's code blocks, and the whole ones in its running text, as words."""
    text = page.read_text()
    fences = re.split(r"^```(\w*)\n", text, flags=re.MULTILINE)  # text, language, block, language, text, ...
    blocks = "\n".join(fences[2::4])
    lines = [line for line in blocks.replace("\\\n", " ").splitlines() if line.startswith(("igpt ", "make "))]
    lines += [one for one in re.findall(r"`(igpt [a-z]+ [^`\n]*)`", text) if re.search(WHOLE, one)]
    return [shlex.split(line, comments=True) for line in lines]


def elsewhere(words: list[str]) -> bool:
    return any(name in " ".join(words) for name in ELSEWHERE)


PLACEHOLDERS = {"...", "NAME", "VERB", "DIR", "FILE", "OUT", "R", "X"}


def incomplete(words: list[str]) -> bool:
    """Whether there is something for the reader to fill in."""
    return bool(PLACEHOLDERS & {part for word in words for part in (word, *re.split(r"[/.]", word))})


def toy(words: list[str]) -> list[str]:
    """The same command with what makes it small behind it."""
    verb, text = words[1], " ".join(words)
    if verb == "fit" and re.search(r"joint|lowdata|families", text):
        return [*words[1:], *QUICK, "--trainer.val_check_interval=1"]
    if verb == "fit":
        return [
            *words[1:],
            *SMALL,
            *QUICK,
            "--model.init_args.compile=false",
            "--samples.num=1",
            "--samples.completions=1",
        ]
    if verb in ("validate", "test", "predict"):
        return [*words[1:], *SMALL, *QUICK]
    if verb == "tune":
        small = [
            word.removeprefix("--") for word in (*SMALL, *QUICK, "--samples.num=0", "--trainer.val_check_interval=1")
        ]
        return [*words[1:], "--rates", "0.01", "--overrides", *small]
    if verb == "palette" and "vq" in words:
        return [*words[1:], "--steps", "2"]
    if verb == "evaluate":
        return [*words[1:], "--num", "10", "--reference", "32"]
    if verb == "scale":
        return [*words[1:], "--dry-run", "--speed", "1e9"]
    if verb == "show":  # it runs until somebody ends it: tests/show starts it
        return ["show", "--help"]
    if verb == "probe" and "--labels-per-class" in words:
        return [*words[1:], "--subsets", "1", "--layers", "0"]
    if verb == "probe" and "--method" in words:
        return [*words[1:], "--epochs", "1"]
    return words[1:]


@pytest.fixture
def world(tmp_path, monkeypatch, cifar_files):  # noqa: F811
    """What the reader has: the checkout's configs and its one palette, CIFAR-10's files, pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPO / "configs", "configs")
    Path("palettes").mkdir()
    for name in ("digits.npy", "digits.json"):
        shutil.copy(REPO / "palettes" / name, "palettes")
    Path("data").mkdir()
    for file in cifar_files[0].iterdir():
        Path("data", file.name).symlink_to(file)
    fashion_mnist(Files(Path("data")))
    colors = np.random.default_rng(0).uniform(-1, 1, (512, 3)).astype(np.float32)
    np.save("palettes/cifar10.npy", colors)  # `make palette` fetches CIFAR-10 for it
    class_tree(Path("my_images/train"), {"cat": 12, "dog": 12})
    class_tree(Path("my_images/test"), {"cat": 4, "dog": 4})
    class_tree(Path("my_web"), {"here": 12, "there": 12})
    picture(1).save("picture.png")
    return tmp_path


def name_of(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_of_a_page_is_there(page, monkeypatch):
    monkeypatch.chdir(REPO)
    for words in commands(page):
        if words[0] == "igpt" and words[1] in VERBS and not (elsewhere(words) or incomplete(words)):
            given = re.sub(
                r"--(ckpt|ckpt_path)[ =]\S+", r"--\1 last", shlex.join(words[2:])
            )  # there once it is trained
            given = re.sub(r"--config[ =](?!configs/|\w+( |$))\S+", "", given)
            check_names(words[1], shlex.split(given), words[1] in ("fit", "validate", "test", "predict"))


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=() if page == PAGES[0] else pytest.mark.slow) for page in PAGES], ids=name_of
)
@pytest.mark.usefixtures("cifar_root")
def test_every_command_of_a_page_works(page, world, igpt):
    """Slow but for README: the options of other pages are looked at above, and their verbs have tests of their own."""
    asked = [words for words in commands(page) if not (elsewhere(words) or incomplete(words))]
    if any("runs/digits_bert" in " ".join(words) for words in asked):
        asked.insert(0, ["igpt", "fit", "--config", "configs/digits/bert.yaml"])
    if any("runs/digits_ar" in " ".join(words) for words in asked):
        asked.insert(0, ["igpt", "fit", "--config", "configs/digits_ar.yaml"])
    for words in asked:
        if words[0] == "make":
            assert re.search(
                rf"^{words[-1].partition('=')[0]}:|^{words[1]}:", (REPO / "Makefile").read_text(), re.MULTILINE
            )
            continue
        code, _, err = igpt(*toy(words))
        assert code == 0, f"{shlex.join(words)}\n{err}"


def test_what_is_not_run_is_still_in_the_text():
    text = "\n".join(shlex.join(words) for page in PAGES for words in commands(page))
    assert [name for name in ELSEWHERE if name not in text] == []


def test_the_text_names_no_verb_that_is_not_there():
    named = {words[1] for page in PAGES for words in commands(page) if words[0] == "igpt"}
    assert {name for name in named if name.isalpha() and name.islower()} <= set(VERBS)
