"""The main job on real input, end to end: a fit to our own training runs, the RoPE bases of released models, three claims on trial."""

from dataclasses import dataclass
from typing import Any

from ..artifacts import datasets
from .fit import Ranking, fit
from .run import run
from .verify import verify

LAW = "beyond-chinchilla.chinchilla_loss"
CLAIMS = ("best-of-n-kl.below_common_bound", "multi-draft-acceptance.linear_programme", "unigram-watermark.false_alarms")


@dataclass(frozen=True)
class Demonstration:
    ranking: Ranking
    models: dict[str, Any]  # the table of rope-base-region.released_models
    tolerance: float
    verdicts: list
    plan: dict[str, Any]  # what the fitted law would train with ten times the ladder's largest compute


def demonstrate(*, workers=1, tolerance=0.5, progress=None):
    """Everything the demo page shows."""

    def tell(text):
        if progress:
            progress(text)

    tell("fitting the ladder")
    ranking = fit(datasets.load("ladder"), law=LAW)
    best = ranking.best
    compute = 10 * float(ranking.table.numbers("compute").max())
    constants = {name.partition(".")[2]: value for name, value in best.parameters.items()}
    plan = run("beyond-chinchilla.compute_optimal", compute=compute, constants=constants).value | {"compute": compute}
    tell("RoPE bases of released models")
    models = run("rope-base-region.released_models", tolerance=tolerance).value
    tell("three claims on trial")
    verdicts = verify(*CLAIMS, workers=workers, resume=True)
    return Demonstration(ranking, models, tolerance, verdicts, plan)
