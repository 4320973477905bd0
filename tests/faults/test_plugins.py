"""Plug-ins that break the contract, found through real entry points of packages on the path."""

import importlib
import sys
import warnings

import pytest

HEAD = """
import torch
from igpt.data import ImageDataModule, TensorImages
IMAGES, LABELS = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8), torch.arange(60) % 2

class {name}(ImageDataModule):
    num_classes = 2
    def __init__(self, resolution: int = 8, batch_size: int = 4):
        super().__init__(resolution, batch_size)
    def load(self):
        whole = TensorImages(IMAGES, LABELS)
        return {{"train": {train}, "test": {test}}}
"""


def plugin(name, train="whole", test="whole"):
    return HEAD.format(name=name, train=train, test=test)


@pytest.fixture
def installed(tmp_path_factory, monkeypatch):
    """Install packages of one class each: `installed(Name="source")`. What was imported is forgotten afterwards."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(point=None, **sources):
        for name, source in sources.items():
            package = f"plugin_{name.lower()}"
            (site / f"{package}.py").write_text(source)
            info = site / f"{package}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[igpt.datamodules]\n{name} = {point or f'{package}:{name}'}\n")
        importlib.invalidate_caches()

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


LEFT_OUT = {  # source of a plug-in that cannot be imported, and what its warning says
    "raises": ("raise RuntimeError('no licence\\nfound')", "RuntimeError: no licence found"),
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "is cut short": ("class Broken(", "SyntaxError"),
    "has no such class": ("", "AttributeError"),
    "needs what is not there": ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_plugin_that_cannot_be_imported_is_named_and_the_others_work_on(igpt, installed, tmp_path, name):
    source, reason = LEFT_OUT[name]
    installed(Broken=source)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = igpt("palette", "--data", "Digits", "--colors", 4, "--out", tmp_path / "p.npy")
    assert code == 0, err
    assert err.count("\n") == 1
    assert err.startswith("igpt: warning: data module Broken of plugin_broken cannot be imported")
    assert reason in err


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("AFunction", "def AFunction(): pass"),
        ("ANumber", "ANumber = 3"),
        ("AnotherKind", "class AnotherKind: pass"),
        ("NoLoad", "from igpt.data import ImageDataModule\nclass NoLoad(ImageDataModule): pass"),
    ],
)
def test_a_plugin_of_another_type(refused, installed, name, source):
    installed(**{name: source})
    refused("palette", "--data", name, "--colors", 4, "--out", "p.npy", words=["--data"])


DATA_PY = pytest.mark.xfail(strict=True, reason="ImageDataModule.setup does not look at what load gave")
BROKEN = {
    "Nothing": ("return None", ()),
    "ATuple": ("return (1, 2)", ()),
    "NoTest": ('return {"train": TensorImages(IMAGES, LABELS)}', ()),
    "NoTrain": ('return {"test": TensorImages(IMAGES, LABELS)}', ()),
    "ATensor": ('return {"train": IMAGES, "test": IMAGES}', ()),
    "EmptyTest": ('return {"train": whole, "test": TensorImages(IMAGES[:0], LABELS[:0])}', ()),
    "EmptyTrain": ('return {"train": TensorImages(IMAGES[:0], LABELS[:0]), "test": whole}', ()),
    "Floats": ('return {"train": TensorImages(IMAGES / 255, LABELS), "test": whole}', ()),
    "Grey": ('return {"train": TensorImages(IMAGES[:, :1], LABELS), "test": whole}', ()),
    "ChannelsLast": ('return {"train": TensorImages(IMAGES.movedim(1, -1), LABELS), "test": whole}', ()),
    "Wide": ('return {"train": TensorImages(IMAGES[..., :4], LABELS), "test": whole}', ()),
    "Large": ('return {"train": TensorImages(IMAGES.repeat(1, 1, 2, 2), LABELS), "test": whole}', ()),
    "FewLabels": ('return {"train": TensorImages(IMAGES, LABELS[:50]), "test": whole}', ()),
}
GIVES_UP = {"EmptyTest"}  # what is refused today


def of(name):
    body = BROKEN[name][0]
    return HEAD.format(name=name, train="whole", test="whole").replace('return {"train": whole, "test": whole}', body)


@pytest.mark.parametrize("verb", ["fit", "palette"])
@pytest.mark.parametrize("name", [n if n in GIVES_UP else pytest.param(n, marks=DATA_PY) for n in BROKEN])
def test_a_plugin_whose_images_break_the_contract(refused, installed, digits_run, verb, name):
    installed(**{name: of(name)})
    if verb == "fit":
        data = f"{{class_path: plugin_{name.lower()}.{name}}}"
        options = ["--config", digits_run.config, "--trainer.log_every_n_steps", 1, "--data", data]
    else:
        options = ["--data", name, "--colors", 4, "--out", "p.npy"]
    refused(verb, *options, words=["data"])


@pytest.mark.parametrize("verb", ["probe", "fit"])
def test_labels_out_of_range_are_refused_where_classes_count(refused, installed, digits_run, verb):
    installed(Beyond=plugin("Beyond", "TensorImages(IMAGES, LABELS - 1)"))
    if verb == "probe":
        refused("probe", "--ckpt", digits_run.checkpoint, "--data", "Beyond", "--out", "p", words=["--data", "-1"])
        return
    model = f"{{class_path: igpt.modules.Joint, init_args: {{num_classes: 2, pretrained: {digits_run.checkpoint}}}}}"
    trainer = "{max_steps: 2, accelerator: cpu}"
    refused("fit", "--model", model, "--data", "Beyond", "--trainer", trainer, words=["--data", "no label"])


@pytest.mark.parametrize("error", ["RuntimeError('no disk')", "KeyError('train')", "UserError('data: two\\nlines')"])
def test_a_plugin_that_fails_while_it_reads_is_one_line(refused, installed, error):
    source = plugin("Fails").replace("whole =", f"raise {error}\n        whole =")
    installed(Fails=source.replace("import ImageDataModule", "import UserError, ImageDataModule"))
    code = 2 if "UserError" in error else 1
    refused("palette", "--data", "Fails", "--colors", 4, "--out", "p.npy", code=code)
