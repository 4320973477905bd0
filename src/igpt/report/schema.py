"""What a run folder says, as typed records. Accuracies are shares of 1, losses nats per pixel; None is "not known".

Fields are named as in the JSON and YAML files they are loaded from.
"""

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from torch import Tensor


def load(kind: Any, value: Any) -> Any:
    """Part of a JSON or YAML file as its annotated type; mappings become dataclasses, by the names of their fields.

    Raises:
        ValueError or TypeError: a field is of another kind, or missing.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or (is_dataclass(kind) and isinstance(value, kind)):  # type: ignore[arg-type]
        return value
    if type(None) in args:
        return None if value is None else load(args[0], value)
    fits = isinstance(value, (int, float) if kind is float else dict if is_dataclass(kind) else origin or kind)
    if not fits:
        raise TypeError(f"{value!r:.40} is no {getattr(kind, '__name__', kind)}")
    if origin is list:
        return [load(args[0], one) for one in value]
    if origin is dict:
        return {str(name): load(args[1], one) for name, one in value.items() if one is not None}
    if is_dataclass(kind):
        hints = {name: hint for name, hint in get_type_hints(kind).items() if value.get(name) is not None}
        return kind(**{name: load(hint, value[name]) for name, hint in hints.items()})  # type: ignore[operator]
    return value


@dataclass(frozen=True)
class Network:
    """Shape of a transformer; AR and BERT of one shape are equal here, though only AR has a start of sequence."""

    n_layers: int
    d_model: int
    n_heads: int
    n_positions: int
    vocab_size: int


@dataclass
class Data:
    """What a data module's specification and identity say.

    `identity` tells them from others of this name and resolution; older versions wrote none, and `arguments` stand for
    it. `apart` stands behind the name where a report has several of this name.
    """

    name: str
    resolution: Any = None  # side, or rows and columns
    val_share: float | None = None
    fold_validation: bool = False
    labels_per_class: int | None = None
    subset_seed: int | None = None
    batch_size: int | None = None
    identity: str = ""
    arguments: str = ""
    root: str | None = None
    fingerprint: str | None = None
    classes: int | None = None
    apart: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.resolution, list):
            self.resolution = tuple(self.resolution)
        sides = self.resolution if isinstance(self.resolution, tuple) else [self.resolution or 0]
        if not all(type(side) is int for side in sides):
            raise TypeError(f"{self.resolution!r:.40} is no resolution")

    @property
    def plain(self) -> str:
        """Name and resolution."""
        sides = self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)
        return f"{self.name} {sides[0]}x{sides[1]}" if self.resolution else self.name

    @property
    def label(self) -> str:
        """Name, resolution and what tells them from others in a report: equal labels mean equal data."""
        return f"{self.plain} {self.apart}".strip()


@dataclass(frozen=True)
class LayerScore:
    """The probe of one `layer`, of `layers` side by side, or of raw pixels (neither), and what validation chose."""

    test_accuracy: float
    val_accuracy: float | None = None
    layer: int | None = None
    layers: list[int] = field(default_factory=list)
    strength: float | None = None
    rate: float | None = None
    k: float | None = None


@dataclass(frozen=True)
class MethodResult:
    """All layers under one way of probing; `concat` is of neighbouring layers side by side."""

    layers: list[LayerScore]
    best_layer: int
    raw_pixels: LayerScore | None = None
    protocol: str | None = None
    concat: LayerScore | None = None

    @property
    def best(self) -> LayerScore:
        """The layer that validation chose."""
        return next(score for score in self.layers if score.layer == self.best_layer)


@dataclass(frozen=True)
class LowData:
    """Probes fitted to few labels, one for each subset, of the best layer and of raw pixels."""

    labels_per_class: int
    runs: list[LayerScore] = field(default_factory=list)
    raw_pixels: list[LayerScore] = field(default_factory=list)

    @property
    def accuracies(self) -> list[float]:
        """On the test split, one a subset."""
        return [one.test_accuracy for one in self.runs]


@dataclass(frozen=True)
class Features:
    """What counted as features of a layer."""

    norm: str | None = None
    grid: int | None = None
    masks: int | None = None
    standardise: bool | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of test images, nats per pixel: mean and standard deviation over images; of a bound where not exact.

    Bits per dimension of RGB: of bytes, or of a palette's tokens with what lies within their cells.
    """

    images: int
    mean_nats: float
    std_nats: float
    bits_per_dim: float | None = None
    bits_per_dim_learned: float | None = None
    bits_per_dim_uniform: float | None = None
    exact: bool = True
    precision: str | None = None  # where it is not that of the score that it belongs to


@dataclass(frozen=True)
class Probe:
    """One probe.json: `methods` by name, `images` by split."""

    step: int
    data: Data
    method: str
    methods: dict[str, MethodResult]
    features: Features = Features()
    images: dict[str, int] = field(default_factory=dict)
    low_data: list[LowData] = field(default_factory=list)
    likelihood: Likelihood | None = None
    command: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    folder: Any = Path()

    @property
    def result(self) -> MethodResult:
        """Of the main method."""
        return self.methods[self.method]


@dataclass(frozen=True)
class Confusion:
    """How often images of class i (rows) were taken for class j."""

    classes: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Began:
    """The checkpoint whose weights a training began with."""

    checkpoint: str
    step: int | None = None


@dataclass(frozen=True)
class Judged:
    """What evaluate.json says of one set of pictures."""

    images: int
    frechet: float
    kernel: float
    kernel_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    copies: float


@dataclass(frozen=True)
class Evaluation:
    """evaluate.json: the samples of a run, and sets to compare them with, in one space of features."""

    figures: dict[str, Judged]
    space: dict[str, Any]
    training_images: int
    step: int | None = None
    command: str | None = None


@dataclass(frozen=True)
class Score:
    """One entry of scores.json: a test or a validation of one checkpoint; metrics that were not finite are missing."""

    verb: str
    metrics: dict[str, float]
    checkpoint: str = ""
    step: int | None = None
    model: dict[str, Any] = field(default_factory=dict)
    data: Data | None = None
    likelihood: Likelihood | None = None
    confusion: Confusion | None = None
    precision: str | None = None
    command: str | None = None
    limit_batches: Any = None

    @property
    def evaluation(self) -> tuple[Any, Any] | None:
        """How classes were found, and under how many masks."""
        return (self.model["evaluation"], self.model["eval_masks"]) if "eval_masks" in self.model else None


class Point(NamedTuple):
    """A value after `step` optimizer steps."""

    step: int
    value: float


class Picture(NamedTuple):
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
class Run:
    """One run folder."""

    name: str
    folder: str
    objective: str  # of `objective_of`
    core: str  # the objective itself, or what Joint holds
    data: Data  # trained on; of an imported run, whose files do not tell, last tested on
    origin: str | None = None  # of Joint: AR or BERT (from a checkpoint), scratch, or None where no file tells
    began: Began | None = None  # None: with new weights, or not known
    weight: float | None = None  # of L_GEN in Joint
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
    probes: list[Probe] = field(default_factory=list)  # one a checkpoint, by step
    aside: list[Probe] = field(default_factory=list)  # moved aside by later ones; no figures of the run
    scores: list[Score] = field(default_factory=list)
    judged: Evaluation | None = None  # its samples
    pictures: dict[str, Picture] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    steps_saved: list[int] = field(default_factory=list)  # of checkpoint files
    checkpoint: str = "checkpoints/last.ckpt"  # that further figures are made from
    config: str = "config.yaml"  # that further tests take

    @property
    def probe(self) -> Probe | None:
        """Of the last checkpoint that was probed, which stands for the run."""
        return self.probes[-1] if self.probes else None

    @property
    def probed_likelihood(self) -> Likelihood | None:
        """Of that checkpoint, where it was probed on the run's own data."""
        return self.probe.likelihood if self.probe and self.probe.data.label == self.data.label else None

    @property
    def loss_tag(self) -> str:
        """Name of the generative loss in events and scores."""
        return "generative_loss" if self.objective == "Joint" else "loss"

    @property
    def own_scores(self) -> list[Score]:
        """On all of the run's own data; a score that does not tell its data counts as such."""
        whole = [score for score in self.scores if score.limit_batches is None]
        return [score for score in whole if score.data is None or score.data.label == self.data.label]

    @property
    def evaluated(self) -> list[Data]:
        """What it was probed and scored on."""
        return [*(probe.data for probe in self.probes), *(score.data for score in self.scores if score.data)]

    @property
    def test(self) -> Score | None:
        """The test that stands for the run, on its own data: evaluated as its config says, of best.ckpt where there is
        one, else of the last step; of several the latest.
        """

        def rank(score: Score) -> tuple[bool, bool, int]:
            return score.evaluation == self.evaluation, "best" in score.checkpoint, score.step or 0

        return max((score for score in reversed(self.own_scores) if score.verb == "test"), key=rank, default=None)

    def tested(self, metric: str) -> float | None:
        """A metric of that test; without any in scores.json, the last that the events hold."""
        return (self.test.metrics if self.test else self.events.tested).get(f"test/{metric}")

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
