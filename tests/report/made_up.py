"""Records of runs with made-up figures, for tests of the functions between reading and writing."""

from igpt.report.schema import Data, Events, Features, LayerScore, MethodResult, Network, Point, Probe, Run, Score

DIGITS = Data("Digits", 8, val_share=0.1, batch_size=64)
NETWORK = Network(6, 96, 4, 64, 17)
PEAK = (0.70, 0.80, 0.88, 0.90, 0.87, 0.82, 0.75)


def result(accuracies, validation=None):
    validation = validation or accuracies
    rows = [LayerScore(t, v, i, strength=0.001) for i, (v, t) in enumerate(zip(validation, accuracies, strict=True))]
    best = max(range(len(rows)), key=lambda layer: (validation[layer], -layer))
    return MethodResult(rows, best, LayerScore(0.95, 0.9, strength=0.01), "refitted on train + val")


def probe(accuracies=PEAK, step=500, images=359, features=None, data=DIGITS, validation=None, **more):
    features = features or Features("normed", 1, 0, True, "float16")
    sizes = {"train": 1294, "val": 144, "test": images} if images else {}
    return Probe(step, data, "lbfgs", {"lbfgs": result(accuracies, validation)}, features, sizes, **more)


def run(name, objective="AR", accuracies=None, seed=0, **more):
    """A pre-training run, probed once at its end where accuracies are given."""
    probes = [probe(accuracies)] if accuracies else []
    fixed = {"max_steps": 500, "learning_rate": 0.001, "network": NETWORK, "steps": 500, "probes": probes}
    return Run(name, f"runs/{name}", objective, objective, DIGITS, seed=seed, **{**fixed, **more})


def scored(accuracy, masks=5, evaluation="mode", checkpoint="best.ckpt", step=400):
    return Score("test", {"test/accuracy": accuracy}, checkpoint, step, {"evaluation": evaluation, "eval_masks": masks})


def tuned(name, core, accuracy, origin=None, weight=1.0, seed=0, scores=(), **more):
    """A fine-tuned run with its test."""
    fixed = {"max_steps": 800, "learning_rate": 0.003, "network": NETWORK, "evaluation": ("mode", 5), "data": DIGITS}
    known = {"origin": origin or core, "weight": weight, "scores": [scored(accuracy), *scores]}
    return Run(name, f"runs/{name}", "Joint", core, seed=seed, **{**fixed, **known, **more})


def traced(name, losses, accuracies):
    """An AR run whose checkpoints have these validation losses and best-layer accuracies."""
    steps = [100 * (index + 1) for index in range(len(losses))]
    curve = [Point(step, loss) for step, loss in zip(steps, losses, strict=True)]
    probes = [probe((0.1, 0.1, 0.1, best, 0.1, 0.1, 0.1), step) for step, best in zip(steps, accuracies, strict=True)]
    return run(name, events=Events({"val/loss": curve}), probes=probes)
