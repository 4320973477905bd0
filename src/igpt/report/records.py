"""What a run folder says, as plain records. Accuracies are shares of 1, losses nats per pixel; None is "not known"."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Network:
    """Shape of a transformer; AR and BERT of one shape are equal here, though only AR has a start of sequence."""

    layers: int
    width: int
    heads: int
    positions: int
    colors: int


@dataclass(frozen=True)
class Data:
    """What a data module's specification says; `labels_per_class` and `subset_seed` are of low-data runs."""

    name: str
    resolution: int | None = None
    seed: int | None = None
    val_share: float | None = None
    folded: bool = False
    labels_per_class: int | None = None
    subset_seed: int | None = None
    batch_size: int | None = None
    known: str = ""  # what tells them from others of this name and resolution: their identity, else their arguments
    arguments: str = ""  # what older versions, which wrote no identity, tell of them
    root: str | None = field(default=None, compare=False)  # the folder they lie in, which may be any
    fingerprint: str | None = None  # of labels and some pictures
    classes: int | None = None
    apart: str = ""  # behind the name, where a report has several of this name (`gather.told_apart`)

    @property
    def label(self) -> str:
        """Name, resolution and what tells them from others in a report: equal labels mean equal data."""
        return f"{self.plain} {self.apart}".strip()

    @property
    def plain(self) -> str:
        """Name and resolution."""
        return f"{self.name} {self.resolution}x{self.resolution}" if self.resolution else self.name


@dataclass(frozen=True)
class Point:
    """A value after `step` optimizer steps."""

    step: int
    value: float


@dataclass(frozen=True)
class Picture:
    """An encoded image and where it comes from."""

    content: bytes
    origin: str


@dataclass(frozen=True)
class Events:
    """Scalars of training by tag, the last value of each tag of a test, and the last picture of each image tag."""

    curves: dict[str, list[Point]] = field(default_factory=dict)
    tested: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerScore:
    """The probe of one layer, of several side by side, or of raw pixels (no layer)."""

    layers: tuple[int, ...]
    val: float | None
    test: float
    chosen: str


@dataclass(frozen=True)
class MethodResult:
    """All layers under one way of probing; `concat` is of neighbouring layers side by side."""

    name: str
    layers: list[LayerScore]
    best_layer: int
    raw_pixels: LayerScore | None = None
    protocol: str | None = None
    concat: LayerScore | None = None

    @property
    def best(self) -> LayerScore:
        """The layer that validation chose."""
        return next(score for score in self.layers if score.layers == (self.best_layer,))


@dataclass(frozen=True)
class LowData:
    """Probes fitted to few labels; one test accuracy a subset."""

    labels_per_class: int
    accuracies: list[float]


@dataclass(frozen=True)
class Protocol:
    """What counted as features of a layer."""

    norm: str | None = None
    grid: int | None = None
    masks: int | None = None
    standardised: bool | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Probe:
    """One probe.json."""

    step: int
    data: Data
    method: str
    methods: dict[str, MethodResult]
    protocol: Protocol
    images: dict[str, int]
    low_data: list[LowData] = field(default_factory=list)
    command: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    folder: Path = Path()

    @property
    def result(self) -> MethodResult:
        """Of the main method."""
        return self.methods[self.method]


@dataclass(frozen=True)
class Likelihood:
    """Exact likelihood of the test images, per pixel; the deviation is over images."""

    images: int
    mean: float
    deviation: float


@dataclass(frozen=True)
class Score:
    """One entry of scores.json: a test or a validation of one checkpoint."""

    verb: str
    metrics: dict[str, float]
    checkpoint: str
    step: int | None = None
    model: dict[str, Any] = field(default_factory=dict)
    data: Data | None = None
    likelihood: Likelihood | None = None
    precision: str | None = None
    command: str | None = None
    limited: bool = False  # of a part of the split


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        objective: AR, BERT or Joint.
        core: AR or BERT: the objective itself, or what Joint holds.
        data: that it was trained on; of an imported run, whose files do not tell, that it was last tested on.
        origin: of Joint: AR or BERT (fine-tuned from a checkpoint), scratch, or None where no file tells.
        weight: of L_GEN in Joint.
        probes: one a checkpoint, by step; the last is the one that stands for the run.
        aside: probes that later ones of another checkpoint, other data or options moved aside; no figures of the run.
        steps_saved: steps of the checkpoint files that lie in the folder.
        checkpoint: file that further figures of the run are made from: best.ckpt of Joint, else the last.
        config: file that further tests take: what `igpt fit` wrote, or `igpt import`, which lacks the data.
    """

    name: str
    folder: str
    objective: str
    core: str
    data: Data
    origin: str | None = None
    weight: float | None = None
    network: Network | None = None
    parameters: int | None = None
    palette: Tensor | None = None
    seed: int | None = None
    steps: int | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    order: str = "raster"
    precision: str | None = None
    evaluation: tuple[str, int] | None = None
    events: Events = field(default_factory=Events)
    probes: list[Probe] = field(default_factory=list)
    aside: list[Probe] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    steps_saved: list[int] = field(default_factory=list)
    checkpoint: str = "checkpoints/last.ckpt"
    config: str = "config.yaml"

    @property
    def probe(self) -> Probe | None:
        """Of the last checkpoint that was probed."""
        return self.probes[-1] if self.probes else None

    @property
    def generative(self) -> bool:
        """Whether the loss of this run has a generative part."""
        return self.objective != "Joint" or self.weight != 0

    @property
    def loss_tag(self) -> str:
        """Name of the generative loss in events and scores."""
        return "generative_loss" if self.objective == "Joint" else "loss"

    @property
    def own_scores(self) -> list[Score]:
        """Tests and validations on all of the run's own data; one that does not tell its data counts as such."""
        whole = [score for score in self.scores if not score.limited]
        return [score for score in whole if score.data is None or score.data.label == self.data.label]

    @property
    def test(self) -> Score | None:
        """The test that stands for the run.

        It was on the run's own data, evaluated as its config says, of best.ckpt where there is one, else of the last
        step; where several are left, the latest.
        """

        def rank(score: Score) -> tuple[bool, bool, int]:
            return self.evaluated(score) == self.evaluation, "best" in score.checkpoint, score.step or 0

        tests = [score for score in self.own_scores if score.verb == "test"]
        return max(reversed(tests), key=rank, default=None)

    @staticmethod
    def evaluated(score: Score) -> tuple[str, int] | None:
        """How classes were found, and under how many masks."""
        how, masks = score.model.get("evaluation"), score.model.get("eval_masks")
        return (how, masks) if isinstance(how, str) and isinstance(masks, int) else None

    def tested(self, metric: str) -> float | None:
        """A metric on the test split, from the chosen score; without scores.json the last that the events hold."""
        if self.test is not None:
            return self.test.metrics.get(f"test/{metric}")
        if any(score.verb == "test" for score in self.scores):
            return None  # of other data, and nothing tells of which data the events are
        return self.events.tested.get(f"test/{metric}")

    def curve(self, tag: str) -> list[Point]:
        """Points of a tag; empty where there are none."""
        return self.events.curves.get(tag, [])

    def val_loss_at(self, step: int) -> Point | None:
        """Validation loss of the checkpoint at `step`: validated as such, else at the nearest earlier validation."""
        tag = f"val/{self.loss_tag}"
        for score in reversed(self.own_scores):
            if score.verb == "validate" and score.step == step and tag in score.metrics:
                return Point(step, score.metrics[tag])
        return max((p for p in self.curve(tag) if p.step <= step), key=lambda p: p.step, default=None)
