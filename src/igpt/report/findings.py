"""Findings of the paper, looked for in the given runs: pure functions from records to verdicts."""

from dataclasses import dataclass, field

from igpt.report.groups import Kind, group, labels, shape
from igpt.report.judging import CANNOT, NOT_SEEN, SEEN, Difference, Sample, between, paired, percent, points
from igpt.report.pairing import (
    CORES,
    VOTES,
    both,
    count,
    having,
    images_tested,
    probe_accuracy,
    probe_kinds,
    probed_sides,
    shared_method,
    trace,
    tuned_accuracy,
    tuned_sides,
    values,
    votes,
    ways,
)
from igpt.report.records import LayerScore, Run
from igpt.report.statistics import chance_of_falling, spearman

FEWEST = 4  # checkpoints: of 3, even the perfect order comes about by chance once in 6
LIKELY = 0.05

RECIPES = "of several recipes (steps, rate, batch) of one side, the one with the best validation accuracy stands for it"
DIFFERENCE_RULE = (
    "Seen where the difference of the means is larger than its standard error, which comes from the spread over the "
    "runs (seeds) of each side; not seen where it is as large the other way; anything between cannot be told. A single "
    "run has no spread: the sampling error of its test images then stands in. One standard error is a low bar."
)


@dataclass(frozen=True)
class Evidence:
    """What one comparison says about a finding."""

    subject: str
    numbers: str
    runs: str
    verdict: str


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, the rule it is judged by, and what the runs say; no evidence means none could be had."""

    claim: str
    rule: str
    missing: str
    evidence: list[Evidence] = field(default_factory=list)


def all_findings(runs: list[Run]) -> list[Finding]:
    """Every finding for these runs."""
    return [middle_layers(runs), lower_loss(runs), probes_behind(runs), near_when_tuned(runs), joint(runs), vote(runs)]


def middle_layers(runs: list[Run]) -> Finding:
    """The best layer of each kind of pre-training run, inside the middle half of the network or outside."""
    kinds = probe_kinds([run for run in runs if run.objective != "Joint"])
    names = labels(list(dict.fromkeys(kind for kind, _ in kinds)))
    evidence = [
        Evidence(f"{names[kind]}, {data}", *middle(members, images_tested(members, data)))
        for (kind, data), members in kinds.items()
    ]
    return Finding(
        "The best features lie in the middle of the network",
        "The middle half are layers L/4 to 3L/4. The layer of best validation accuracy inside it is compared with the "
        f"one outside, by test accuracy. {DIFFERENCE_RULE}",
        "no pre-training run has a probe.json; make one with igpt probe",
        evidence,
    )


def middle(runs: list[Run], images: int | None) -> tuple[str, str, str]:
    """Numbers, count and verdict for runs of one kind."""
    pairs = [inside_outside(run) for run in runs]
    known = [pair for pair in pairs if pair]
    if len(known) < len(runs):
        return "layers inside and outside the middle half were not both probed", count(runs), CANNOT
    difference = paired([(inside.test, outside.test) for inside, outside in known], images)
    best = ", ".join(f"{run.probe.result.best_layer} of {depth(run)}" for run in runs if run.probe)
    text = f"best layer {best}; the best layer inside minus the best outside: {difference.text()}"
    return text, count(runs), difference.verdict


def depth(run: Run) -> int:
    """L, from the network's shape, else from the layers that were probed."""
    if run.network is not None:
        return run.network.layers
    return max(max(score.layers) for score in run.probe.result.layers) if run.probe else 0


def inside_outside(run: Run) -> tuple[LayerScore, LayerScore] | None:
    """The layers of best validation accuracy inside and outside the middle half; None where one side is missing."""
    assert run.probe is not None
    last, scores = depth(run), run.probe.result.layers
    inside = [score for score in scores if last / 4 <= score.layers[0] <= 3 * last / 4]
    outside = [score for score in scores if score not in inside]
    if not inside or not outside:
        return None

    def validation(score: LayerScore) -> tuple[float, int]:
        return (score.val if score.val is not None else -1.0, -score.layers[0])

    return max(inside, key=validation), max(outside, key=validation)


def lower_loss(runs: list[Run]) -> Finding:
    """Rank correlation of loss and accuracy over the checkpoints of each pre-training run."""
    evidence = []
    for run in runs:
        known = trace(run)
        if run.objective == "Joint" or not known:
            continue
        losses, accuracies = [loss for _, loss in known], [probe.result.best.test for probe, _ in known]
        text, number, verdict = correlation(losses, accuracies)
        others = len(run.probes) - len(known)
        left_out = f"; left out, without a loss or not probed as the last one: {others}" if others else ""
        evidence.append(Evidence(run.name, f"{text}, {known[-1][0].method}{left_out}", number, verdict))
    return Finding(
        "A lower generative loss goes with better features",
        "Spearman's rank correlation of validation loss and best-layer accuracy over those of a run's checkpoints that "
        "were probed in the same way (method, features, data) as the last. Seen where it is negative and at most "
        f"{100 * LIKELY:.0f} % of all orders give one as low; not seen where the same holds of the opposite; fewer "
        f"than {FEWEST} checkpoints cannot tell. Both also improve with training as such.",
        "no pre-training run has a probed checkpoint with a validation loss; probe several with igpt probe",
        evidence,
    )


def correlation(losses: list[float], accuracies: list[float]) -> tuple[str, str, str]:
    """Numbers, count and verdict for the checkpoints of one run."""
    points = f"{len(losses)} checkpoint{'s' if len(losses) > 1 else ''} of a single run"
    rho = spearman(losses, accuracies)
    if rho is None:
        return "all losses or all accuracies are equal" if len(losses) > 1 else "one checkpoint", points, CANNOT
    falling = chance_of_falling(losses, accuracies)
    rising = chance_of_falling(losses, [-value for value in accuracies])
    text = f"rank correlation {rho:+.2f}; {100 * falling:.1f} % of all orders give one as low"
    if len(losses) < FEWEST or min(falling, rising) > LIKELY:
        return text, points, CANNOT
    return text, points, SEEN if falling <= rising else NOT_SEEN


def probes_behind(runs: list[Run]) -> Finding:
    """AR minus BERT, by the probe of the best layer."""
    evidence = []
    method = shared_method(runs)
    for (data, network), of in probed_sides(runs, method).items():
        if not set(CORES) <= set(of):
            continue
        subject = f"{data}; {shape(network)}"
        if len(ways(of)) > 1:
            text = f"the two were not probed the same way: {' against '.join(ways(of))}"
            evidence.append(Evidence(subject, text, both(of["AR"], of["BERT"]), CANNOT))
            continue
        gap = probe_gap(runs, of, data, method)
        text = f"AR minus BERT, {method}, best layer: {gap.text()}"
        evidence.append(Evidence(subject, text, both(of["AR"], of["BERT"]), gap.verdict))
    return Finding(
        "BERT is behind AR on linear probes",
        f"AR and BERT of the same shape, probed on the same data in the same way; {RECIPES}. {DIFFERENCE_RULE}",
        "needs a probed AR run and a probed BERT run of the same shape and data (igpt fit, igpt probe)",
        evidence,
    )


def probe_gap(runs: list[Run], of: dict[str, list[Run]], data: str, method: str | None) -> Difference:
    """AR minus BERT on probes."""
    ar, bert = (values(of[name], probe_accuracy(method)) for name in CORES)
    images = images_tested(runs, data)
    return between(Sample(ar, images), Sample(bert, images))


def near_when_tuned(runs: list[Run]) -> Finding:
    """Whether at most half of the gap on probes is left after fine-tuning."""
    evidence = []
    method = shared_method(runs)
    probed = probed_sides(runs, method)
    for (data, network), of in tuned_sides(runs).items():
        before = probed.get((data, network), {})
        if not set(CORES) <= set(of) or not set(CORES) <= set(before):
            continue
        images = images_tested(runs, data)
        ar, bert = (Sample(values(of[name], tuned_accuracy), images) for name in CORES)
        gap, left = probe_gap(runs, before, data, method), between(ar, bert)
        verdict, reason = gap.halved_minus(left).verdict, ""
        if len(ways(before)) > 1:
            verdict, reason = CANNOT, f", where the two were not probed the same way: {' against '.join(ways(before))}"
        elif gap.verdict != SEEN:
            verdict, reason = CANNOT, ", where no gap is seen to begin with"
        text = f"AR minus BERT after fine-tuning {left.text()}; on probes {points(gap.value)}{reason}"
        evidence.append(Evidence(f"{data}; {shape(network)}", text, both(of["AR"], of["BERT"]), verdict))
    return Finding(
        "BERT is close to AR after fine-tuning",
        "Close means that at most half of the gap on probes is left; a BERT ahead of AR counts as close. The gap on "
        "probes has to be seen itself, and half of it minus what is left must be larger than the standard error; "
        f"{RECIPES}.",
        "needs probed and fine-tuned runs of AR and of BERT of the same shape and data, with their test accuracy",
        evidence,
    )


def joint(runs: list[Run]) -> Finding:
    """L_GEN + L_CLF minus L_CLF alone, for runs that are alike in everything else."""
    tuned = {kind: members for kind, members in group(runs).items() if kind.objective == "Joint" and kind.origin}
    names = labels(list(tuned))
    evidence = []
    for kind, members in tuned.items():
        for other, alone in tuned.items():
            if not kind.weight or other.weight != 0 or not alike(kind, other):
                continue
            images = images_tested(runs, kind.data)
            sides = [having(side, tuned_accuracy) for side in (members, alone)]
            if not all(sides):
                continue
            ours, theirs = (values(side, tuned_accuracy) for side in sides)
            difference = between(Sample(ours, images), Sample(theirs, images))
            subject = f"{names[kind]}, {kind.data}"
            text = f"both losses {percent(ours)}, L_CLF alone {percent(theirs)}: {difference.text()}"
            evidence.append(Evidence(subject, text, both(*sides), difference.verdict))
    return Finding(
        "L_GEN + L_CLF is better than L_CLF alone",
        "Runs that are alike in origin, data, network, steps, rate and batch, one side with generative_weight 0. "
        f"{DIFFERENCE_RULE}",
        "needs a fine-tuned run, and the same with --model.init_args.generative_weight 0, both with a test accuracy",
        evidence,
    )


def alike(kind: Kind, other: Kind) -> bool:
    """Whether two kinds differ in the weight of L_GEN alone."""
    return {**vars(kind), "weight": None} == {**vars(other), "weight": None}


def vote(runs: list[Run]) -> Finding:
    """Accuracy under 5 masks minus accuracy under one, of the same checkpoints of fine-tuned BERT."""
    evidence = []
    tuned = {kind: of for kind, of in group(runs).items() if kind.objective == "Joint" and kind.core == "BERT"}
    names = labels(list(tuned))
    for kind, members in tuned.items():
        pairs = [(run, pair) for run in members if (pair := votes(run))]
        if not pairs:
            continue
        accuracies = [(many, one) for _, (many, one) in pairs]
        difference = paired(accuracies, images_tested(runs, kind.data))
        many, one = ([pair[side] for pair in accuracies] for side in (0, 1))
        text = f"{VOTES} masks {percent(many)}, one mask {percent(one)}: {difference.text()}"
        chosen = [run for run, _ in pairs]
        evidence.append(Evidence(f"{names[kind]}, {kind.data}", text, count(chosen), difference.verdict))
    return Finding(
        f"The vote of {VOTES} masks helps BERT",
        f"The same checkpoint tested under 5 masks and under 1, modal class. {DIFFERENCE_RULE}",
        "needs igpt test of a fine-tuned BERT run, and again with --model.init_args.eval_masks 1",
        evidence,
    )
