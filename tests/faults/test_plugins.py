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

    def install(point=None, group="igpt.datamodules", **sources):
        for name, source in sources.items():
            package = f"plugin_{name.lower()}"
            (site / f"{package}.py").write_text(source)
            info = site / f"{package}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {point or f'{package}:{name}'}\n")
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


GOOD = "TensorImages(IMAGES, LABELS)"
BROKEN = {  # what `load` returns, and what the line must say of it
    "Nothing": ("None", "NoneType"),
    "ATuple": ("(1, 2)", "tuple"),
    "NoTest": (f'{{"train": {GOOD}}}', "splits train"),
    "NoTrain": (f'{{"test": {GOOD}}}', "splits test"),
    "AnotherSplit": (f'{{"train": {GOOD}, "valid": {GOOD}, "test": {GOOD}}}', "splits train, valid, test"),
    "ATensor": ('{"train": IMAGES, "test": IMAGES}', "Tensor as train"),
    **{
        name: (f'{{"train": {train}, "test": {GOOD}}}', f"train in which {words}")
        for name, train, words in [
            ("EmptyTrain", "TensorImages(IMAGES[:0], LABELS[:0])", "there are no images"),
            ("Floats", "TensorImages(IMAGES / 255, LABELS)", "an image is float32 (3, 8, 8), not uint8 (3, 8, 8)"),
            ("Grey", "TensorImages(IMAGES[:, :1], LABELS)", "an image is uint8 (1, 8, 8)"),
            ("ChannelsLast", "TensorImages(IMAGES.movedim(1, -1), LABELS)", "an image is uint8 (8, 8, 3)"),
            ("Wide", "TensorImages(IMAGES[..., :4], LABELS)", "an image is uint8 (3, 8, 4)"),
            ("Large", "TensorImages(IMAGES.repeat(1, 1, 2, 2), LABELS)", "an image is uint8 (3, 16, 16)"),
            ("Arrays", "TensorImages(IMAGES.numpy(), LABELS)", "an image is ndarray"),
            ("FewLabels", "TensorImages(IMAGES, LABELS[:50])", "60 images have 50 labels"),
            ("ManyLabels", "TensorImages(IMAGES[:50], LABELS)", "50 images have 60 labels"),
            ("LabelsOfOthers", "TensorImages(IMAGES, LABELS + 1)", "label 2 is neither a class, 0 to 1"),
            ("LabelsBelow", "TensorImages(IMAGES, LABELS - 2)", "label -2"),
            ("LabelsInRows", "TensorImages(IMAGES, LABELS[:, None])", "labels are int64 (60, 1)"),
            ("NoPairs", "Each(IMAGES[0], LABELS)", "an item is Tensor"),
            ("Triples", "Each((IMAGES[0], 0, 0), LABELS)", "an item is tuple"),
            ("LabelsInWords", "Each((IMAGES[0], 'cat'), LABELS)", "a label is str"),
            ("LabelsThatAreNone", "Each((IMAGES[0], 0), [None] * 60)", "labels are object (60,)"),
            ("LabelsWithAFraction", "Each((IMAGES[0], 0), [0.5] * 60)", "labels are float64 (60,)"),
        ]
    },
    "EmptyTest": (f'{{"train": {GOOD}, "test": TensorImages(IMAGES[:0], LABELS[:0])}}', "test in which there are no"),
    "FloatsToTest": (f'{{"train": {GOOD}, "test": TensorImages(IMAGES / 1.0, LABELS)}}', "test in which an image is"),
    "GreyToValidate": (
        f'{{"train": {GOOD}, "val": TensorImages(IMAGES[:, :1], LABELS), "test": {GOOD}}}',
        "val in which an image is",
    ),
}
EACH = """
from igpt.data import LabelledImages

class Each(LabelledImages):
    def __init__(self, item, labels):
        self.item, self.labels = item, labels
    def __getitem__(self, index):
        return self.item
"""


def of(name):
    returned = 'return {"train": whole, "test": whole}'
    source = HEAD.format(name=name, train="whole", test="whole")
    assert returned in source
    return source.replace(returned, f"return {BROKEN[name][0]}") + EACH


@pytest.mark.parametrize("name", BROKEN)
def test_a_plugin_whose_images_break_the_contract(refused, installed, name):
    installed(**{name: of(name)})
    words = [f"data module {name}: load() gave", BROKEN[name][1]]
    refused("palette", "--data", name, "--colors", 4, "--out", "p.npy", words=words)


@pytest.mark.parametrize("name", ["ATuple", "NoTest", "Floats", "Large", "FewLabels", "EmptyTest"])
def test_a_plugin_whose_images_break_the_contract_cannot_be_trained_on(refused, installed, digits_run, name):
    installed(**{name: of(name)})
    options = ["--config", digits_run.config, "--data", f"{{class_path: plugin_{name.lower()}.{name}}}"]
    refused("fit", *options, words=[f"data module {name}: load() gave"])


def test_an_image_that_cannot_be_read_is_named_by_its_own_reader_when_its_turn_comes(refused, installed):
    source = of("Floats").replace("return self.item", "raise UserError('image 7.png: mend or remove the file')")
    source = source.replace("TensorImages(IMAGES / 255, LABELS)", "Each(0, LABELS)")
    installed(Floats=source.replace("import LabelledImages", "import LabelledImages, UserError"))
    refused("palette", "--data", "Floats", "--colors", 4, "--out", "p.npy", words=["7.png", "mend or remove"])


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


SOURCE = """
import torch
from igpt.families import FeatureSource

class {name}(FeatureSource):
    layers = ("one", "two")
    def features(self, images, layers):
        pixels = images.flatten(1).float()
        return {given}
"""
BAD_SOURCES = {  # what a source gives, and what the line says of it
    "Nothing": ("None", "features() gave NoneType, not a list of 2 tensors"),
    "OneLayer": ("[pixels]", "features() gave 1 of them, not a list of 2 tensors"),
    "ATensor": ("torch.stack([pixels, pixels])", "features() gave Tensor, not a list of 2 tensors"),
    "Maps": ("[images / 255] * 2", "features() of layer 'one' are float32 (1, 3, 8, 8), not floating (1, D)"),
    "Whole": ("[images.flatten(1)] * 2", "features() of layer 'one' are uint8 (1, 192), not floating (1, D)"),
    "Summed": ("[pixels, pixels.sum(0)]", "features() of layer 'two' are float32 (192,), not floating (1, D)"),
    "Mixed": ("[pixels, pixels.mean(0, keepdim=True).expand(7, -1)]", "of layer 'two' are float32 (7, 192), not"),
    "NoNumbers": ("[pixels, pixels * float('nan')]", "features() of layer 'two' are infinite or no numbers"),
    "InArrays": ("[pixels.numpy()] * 2", "features() of layer 'one' are ndarray, not floating (1, D)"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_source_that_breaks_the_contract_is_one_line(refused, installed, name):
    given, words = BAD_SOURCES[name]
    installed(group="igpt.sources", **{name: SOURCE.format(name=name, given=given)})
    words = [f"--source: {name} breaks the contract of a FeatureSource", words]
    refused("probe", "--source", name, "--data", "Digits", "--out", "p", words=words)


ODD_SOURCES = {  # source of a plug-in, and what the line says
    "Gone": ("import a_module_that_is_not_there", "cannot be imported (ModuleNotFoundError"),
    "ANumber": ("ANumber = 3", "is int, neither a class nor a function"),
    "AnotherKind": ("class AnotherKind: pass", "is AnotherKind, not an igpt.families.FeatureSource"),
    "Fails": ("def Fails(): raise RuntimeError('no licence\\nfound')", "fails: RuntimeError: no licence found"),
    "Wants": ("def Wants(which): pass", "cannot be built from nothing: Wants() missing"),
    "NoFeatures": (
        "from igpt.families import FeatureSource\nclass NoFeatures(FeatureSource): pass",
        "abstract class NoFeatures",
    ),
    "NoLayers": (SOURCE.replace('("one", "two")', "()").format(name="NoLayers", given="[]"), "its layers are ()"),
    "Forgets": (
        SOURCE.format(name="Forgets", given="[]") + "    def __init__(self, cells=4):\n        super().__init__()\n",
        "spec() is no plain data: Forgets must keep its argument 'cells' as an attribute",
    ),
    "Twice": (SOURCE.replace('"two"', '"one"').format(name="Twice", given="[]"), "two of its layers have one name"),
}


@pytest.mark.parametrize("name", ODD_SOURCES)
def test_a_source_that_cannot_be_built_is_one_line(refused, installed, name):
    source, words = ODD_SOURCES[name]
    installed(group="igpt.sources", **{name: source})
    refused("probe", "--source", name, "--data", "Digits", "--out", "p", words=["--source", words])
