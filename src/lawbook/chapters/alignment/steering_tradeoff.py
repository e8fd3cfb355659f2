"""The price of a steering vector: behaviour gained at least like a tanh, linear at first, against helpfulness lost at second order."""

import numpy as np

from lawbook.contract import Paper, count, flag, nonnegative, probability, real, record, vector
from lawbook.numerics import arrays, bracketed_root, logsumexp, softmax
from lawbook.trials import Guarantee, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Tradeoffs Between Alignment and Helpfulness in Language Models with Representation Engineering",
    arxiv="2401.16332",
    tags=["steering", "representation engineering", "alignment", "helpfulness", "activation", "logits", "tradeoff"],
    source="derived",
    says="""A steering vector added to the last hidden state shifts every logit in proportion to its strength r. Where the shift separates good answers from bad ones by a gap, the
    behaviour score is at least a tanh of r, with a linear gain at first. On an unrelated question the same shift acts like noise on the logits and costs the right answer only at
    second order: a little steering is cheap.""",
    notes="""The shapes are the paper's; the bounds are derived here with the least assumptions, for p_r proportional to exp(z + r u). The paper's rate Delta lambda corresponds to
    half the gap. Its upper bound on helpfulness rests on random directions: without them it holds for the worse of the two signs of r, not for a given one.""",
)

STRENGTH = nonnegative(typical=(0, 5), doc="r: multiple of the steering vector", example=1.0)
LOGITS = vector("n", of=real(typical=(-4, 4)), doc="logits of the answers, or next tokens, before steering", example=[1.0, 0.5, 0.0, -0.5], least=2)
DIRECTION = vector("n", of=real(typical=(-1, 1)), doc="change of each logit per unit of strength: output embeddings times the steering vector", example=[0.8, 0.5, -0.4, -0.6])
ALIGNED = vector("n", of=flag(), doc="answers that show the wanted behaviour", example=[1, 1, 0, 0])
CORRECT = count(low=0, typical=(0, 1), doc="index of the right answer, from 0", example=0)
BOTH = {"aligned must be true for some answers and false for others": lambda aligned: np.any(aligned) and not np.all(aligned)}


@paper.bound(
    r"B(r) \ge \tanh\left(\tfrac{r\, \mathrm{gap}}{2} + \mathrm{artanh}\, B(0)\right),\quad \mathrm{gap} = \min_{\text{aligned}} u - \max_{\text{others}} u",
    assumes=["Equality where the logit changes are equal among the aligned and equal among the other answers.", "A negative gap promises nothing but how fast behaviour may fall."],
    closed_form=True,
)
def steered_alignment(
    behaviour: real(low=-1, above=True, high=1, below=True, typical=(-0.9, 0.9), doc="B(0): probability of aligned minus that of other answers", example=-0.2),
    gap: real(typical=(-0.5, 2), doc="least logit change of an aligned answer minus the largest of another", example=1.0),
    strength: STRENGTH,
) -> real(low=-1, high=1):
    """Least behaviour score after steering."""
    xp, score, gap, r = arrays(behaviour, gap, strength)
    return xp.tanh(r * gap / 2 + xp.atanh(score))


@paper.bound(
    r"\min_{\pm r}\, p(c) \le \frac{p_0}{p_0 + (1 - p_0) (1 + r^2 m_2 / 2)}",
    assumes=["For the worse of the two signs of r; for either where the weighted logit changes of the wrong answers are symmetric around that of the right one."],
    closed_form=True,
)
def steered_helpfulness(
    correct_probability: probability(doc="p_0: of the right answer before steering", example=0.8),
    second_moment: nonnegative(typical=(0, 2), doc="m_2: mean squared logit change of the wrong answers relative to the right one, weighted by their probabilities", example=0.5),
    strength: real(typical=(-3, 3), doc="r: multiple of the steering vector", example=1.0),
) -> probability():
    """Largest probability that the right answer of an unrelated question can keep when steered either way."""
    _, p, moment, r = arrays(correct_probability, second_moment, strength)
    return p / (p + (1 - p) * (1 + r**2 * moment / 2))


def log_odds(logits, direction, chosen, strengths):
    """Log of the odds of the chosen answers against all others, at each strength."""
    z, u, chosen = np.asarray(logits, float), np.asarray(direction, float), np.asarray(chosen, bool)
    r = np.atleast_1d(strengths)[:, None]
    block = max(1, 2_000_000 // len(z))
    return np.concatenate([np.subtract(*(logsumexp(np, z[side] + r[i : i + block] * u[side]) for side in (chosen, ~chosen))) for i in range(0, len(r), block)])


def separation(direction, aligned):
    u, aligned = np.asarray(direction, float), np.asarray(aligned, bool)
    return float(u[aligned].min() - u[~aligned].max())


def one_of(n, index):
    return np.arange(n) == index


def sigmoid(x):
    from scipy.special import expit

    return expit(x)


@paper.measure(
    r"B(r) = \tanh\left(\tfrac{1}{2} \log \tfrac{p_r(\text{aligned})}{p_r(\text{others})}\right),\quad p_r \propto e^{z + r u}",
    assumes=["The steering vector acts on the last hidden state, so that logits are linear in its strength."],
    requires=BOTH | {"correct must be below the length of logits": lambda correct, logits: correct < len(logits)},
)
def steering_curve(
    logits: LOGITS, direction: DIRECTION, aligned: ALIGNED, correct: CORRECT, strengths: vector("k", of=STRENGTH, doc="strengths r", example=[0.0, 0.5, 1.0, 2.0])
) -> record(
    behaviour=vector("k", of=real(low=-1, high=1)),
    alignment_bound=vector("k", of=real(low=-1, high=1)),
    correct_probability=vector("k", of=probability()),
    helpfulness_bound=vector("k", of=probability(doc="for the worse of both signs")),
    gap=real(),
    first_moment=real(doc="mean logit change of the wrong answers relative to the right one: what costs at first order"),
    second_moment=nonnegative(),
):
    """Behaviour score and probability of the right answer along the strength, exact and as bounded."""
    z, u, r = np.asarray(logits, float), np.asarray(direction, float), np.asarray(strengths, float)
    right = one_of(len(z), correct)
    others = z[~right] - logsumexp(np, z[~right])
    shift = u[~right] - u[correct]
    first, second = (float(np.exp(others) @ shift**power) for power in (1, 2))
    gap = separation(u, aligned)
    before = log_odds(z, u, aligned, 0.0)
    return {
        "behaviour": np.tanh(log_odds(z, u, aligned, r) / 2),
        "alignment_bound": np.tanh((r * gap + before) / 2),
        "correct_probability": sigmoid(log_odds(z, u, right, r)),
        "helpfulness_bound": steered_helpfulness(sigmoid(log_odds(z, u, right, 0.0)), second, r),
        "gap": gap,
        "first_moment": first,
        "second_moment": second,
    }


@paper.measure(
    r"r^* = \min\{r \in [0, 20] : p_0(c) - p_r(c) = \text{tolerance}\},\quad B(r^*) \ge \tanh\left(\tfrac{r^* \mathrm{gap}}{2} + \mathrm{artanh}\, B(0)\right)",
    requires=BOTH | {"correct must be below the length of logits_task": lambda correct, logits_task: correct < len(logits_task)},
)
def efficient_strength(
    logits_behaviour: LOGITS,
    direction_behaviour: DIRECTION,
    aligned: ALIGNED,
    logits_task: vector("m", of=real(typical=(-4, 4)), doc="logits of an unrelated question", example=[2.0, 1.0, 0.0], least=2),
    direction_task: vector("m", of=real(typical=(-1, 1)), doc="change of each of them per unit of strength", example=[-0.2, 0.1, 0.4]),
    correct: CORRECT,
    tolerance: probability(typical=(0.005, 0.2), doc="loss in probability of the right answer that is tolerated", example=0.05),
) -> record(strength=nonnegative(high=20, doc="20 where the loss stays within the tolerance up to there"), guaranteed_behaviour=real(low=-1, high=1)):
    """Strength at which the right answer of a task first loses what is tolerated, and the behaviour score that is guaranteed there."""
    right = one_of(len(logits_task), correct)

    def excess(r):
        return sigmoid(log_odds(logits_task, direction_task, right, 0.0)) - sigmoid(log_odds(logits_task, direction_task, right, r)) - tolerance

    grid, strength = np.linspace(0, 20, 2001), 20.0
    for i in range(1, 2001, 100):  # most crossings are early
        over = np.flatnonzero(excess(grid[i : i + 100]) > 0)
        if len(over):
            low, high = grid[i + over[0] - 1], grid[i + over[0]]
            strength = bracketed_root(lambda r: excess(r).item(), float(low), float(high)) if excess(low) <= 0 else float(low)
            break
    before = log_odds(logits_behaviour, direction_behaviour, aligned, 0.0).item()
    return {"strength": strength, "guaranteed_behaviour": float(np.tanh((strength * separation(direction_behaviour, aligned) + before) / 2))}


def without_half(behaviour, gap, strength):
    return float(np.tanh(strength * gap + np.arctanh(behaviour)))


@paper.trial(Inequality(rtol=1e-9, atol=1e-11, reaches=0.999999), of=[steered_alignment], controls={"without the factor 1/2": without_half}, quick=300, full=3000)
def behaviour_is_gained(draw, claim):
    """The behaviour score of random answers, a few of them aligned, stays above the bound, which is attained where the two sets move as two blocks."""
    n, r, spread = 8, draw.log_uniform(0.01, 5), draw.choice([0.0, 1.0])
    z, aligned = draw.normal(size=n), np.arange(n) < draw.integer(1, n - 1)
    u = spread * draw.normal(size=n) + draw.normal() * aligned
    before, after = ((2 * aligned - 1.0) @ softmax(z + s * u) for s in (0.0, r))
    return claim(before, separation(u, aligned), r), after, {"strength": r, "before": before}


def the_given_sign(plus, minus):
    return plus


CLAIM = (steered_helpfulness, min)


def random_question(draw):
    """Logits, direction and right answer of a question, with the relative moments of the direction."""
    z, u, c = draw.normal(0, 1.5, size=8), draw.normal(size=8), draw.integer(0, 7)
    p = softmax(z)
    w, x = np.delete(p, c) / (1 - p[c]), np.delete(u, c) - u[c]
    return z, u, c, p[c], w @ x, w @ x**2


@paper.trial(
    Inequality(rtol=1e-9, atol=1e-12),
    of=[steered_helpfulness],
    claim=CLAIM,
    controls={"for one given sign": (steered_helpfulness, the_given_sign), "without the factor 1/2": (lambda p, m2, r: steered_helpfulness(p, 2 * m2, r), min)},
    quick=300,
    full=3000,
)
def helpfulness_is_lost(draw, claim):
    """The right answer of a random question, steered by r and by -r, has no more than the bound on the worse side."""
    z, u, c, p0, _, second = random_question(draw)
    r = draw.log_uniform(0.01, 3)
    bound, taken = claim
    return taken(softmax(z + r * u)[c], softmax(z - r * u)[c]), bound(p0, second, r), {"strength": r, "before": p0}


def forwards_only(logits, direction, aligned, correct, strengths):
    return steering_curve(logits, np.abs(direction), aligned, correct, strengths)


@paper.trial(Identity(rtol=1e-9, atol=1e-12), of=[steering_curve, steered_alignment, steered_helpfulness], controls={"unsigned direction": forwards_only}, quick=60, full=2000)
def curves(draw, claim):
    """Curves, bounds and moments agree with the plain softmax of the shifted logits."""
    n, r = draw.integer(2, 40), np.sort(draw.uniform(0, 4, 6))
    z, u, c = draw.normal(0, 2, size=n), draw.normal(size=n), draw.integer(0, n - 1)
    aligned = np.arange(n) < draw.integer(1, n - 1)
    p = np.array([softmax(z + s * u) for s in [0.0, *r]])
    behaviour = p @ (2 * aligned - 1.0)
    w, x, gap = np.delete(p[0], c) / (1 - p[0, c]), np.delete(u, c) - u[c], separation(u, aligned)
    bounds = [*steered_alignment(behaviour[0], gap, r), *steered_helpfulness(p[0, c], w @ x**2, r)]
    told = claim(z, u, aligned, c, r)
    claimed = np.concatenate(
        [np.ravel(told[name]) for name in ("behaviour", "correct_probability", "alignment_bound", "helpfulness_bound", "gap", "first_moment", "second_moment")]
    )
    return [*behaviour[1:], *p[1:, c], *bounds, gap, w @ x, w @ x**2], claimed, {"strengths": r}


def uncentred(logits, direction, aligned, correct, strengths):
    return steering_curve(logits, direction - 0.5 * one_of(len(direction), correct), aligned, correct, strengths)


@paper.trial(Rate(within=0.02), of=[steering_curve], controls={"a mean shift against the right answer": uncentred}, quick=20, full=300)
def loss_is_quadratic(draw, claim):
    """Where the mean relative shift of the wrong answers is zero, the right answer loses probability as the square of the strength."""
    z, u, c, p0, first, second = random_question(draw)
    u[c] += first  # now the mean relative shift is zero, and the second moment a variance
    r = np.geomspace(1e-3, 1e-1, 9)
    lost = p0 - claim(z, u, one_of(8, c), c, r)["correct_probability"]
    return r, lost / (p0 * (1 - p0) * (second - first**2) / 2), 2


def either_way(logits, direction, aligned, correct, strengths):
    return {"behaviour": sum(steering_curve(logits, sign * direction, aligned, correct, strengths)["behaviour"] for sign in (-1, 1)) / 2}


@paper.trial(Rate(within=0.02), of=[steering_curve], controls={"mean over both signs of the direction": either_way}, quick=20, full=300)
def gain_is_linear(draw, claim):
    """Where the gap is at least one half, the behaviour score grows in proportion to the strength."""
    z, aligned, r = draw.normal(size=8), np.arange(8) < draw.integer(1, 7), np.geomspace(1e-4, 1e-2, 9)
    u = draw.uniform(0, 1, 8) + (1 + draw.uniform(0.5, 2)) * aligned
    sides = [softmax(z[side]) @ u[side] for side in (aligned, ~aligned)]
    before = (2 * aligned - 1.0) @ softmax(z)
    return r, (claim(z, u, aligned, 0, r)["behaviour"] - before) / ((1 - before**2) / 2 * (sides[0] - sides[1])), 1


def quadratic_estimate(logits_behaviour, direction_behaviour, aligned, logits_task, direction_task, correct, tolerance):
    told = steering_curve(logits_task, direction_task, one_of(len(logits_task), correct), correct, [0.0])
    p = told["correct_probability"][0]
    return {"strength": min(float(np.sqrt(2 * tolerance / (p * (1 - p) * told["second_moment"]))), 20.0), "guaranteed_behaviour": 0.0}


@paper.trial(Guarantee(), of=[efficient_strength], controls={"strength from the quadratic term alone": quadratic_estimate}, quick=40, full=500)
def first_crossing(draw, claim):
    """Up to the strength found the loss stays within the tolerance, just beyond it exceeds it, and the behaviour is at least as guaranteed."""
    z, u, c, p0, *_ = random_question(draw)
    behaviour, shift, aligned, tolerance = draw.normal(size=6), draw.normal(size=6), np.arange(6) < draw.integer(1, 5), draw.uniform(0.01, 0.3)
    told = claim(behaviour, shift, aligned, z, u, c, tolerance)
    strength = told["strength"]
    lost = [p0 - softmax(z + r * u)[c] for r in np.linspace(0, strength, 50)]
    beyond = tolerance if strength == 20 else p0 - softmax(z + (strength + 1e-6) * u)[c]
    return (
        [max(lost), tolerance, told["guaranteed_behaviour"]],
        [tolerance + 1e-9, beyond, (2 * aligned - 1.0) @ softmax(behaviour + strength * shift) + 1e-12],
        {"strength": strength},
    )


@paper.finding(
    """Steering in a given direction need not cost helpfulness: without an assumption on directions the quadratic bound is exceeded on almost half of random questions, nearly
    always because the right answer happens to gain at first order; the worse of the two signs always obeys it.""",
    trial=helpfulness_is_lost,
)
def one_sign_may_gain():
    rng = np.random.default_rng(0)
    z, u = 1.5 * rng.normal(size=(4000, 8)), rng.normal(size=(4000, 8))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    x = u[:, 1:] - u[:, :1]
    w = p[:, 1:] / (1 - p[:, :1])
    bound = steered_helpfulness(p[:, 0], np.sum(w * x**2, axis=1), 0.5)
    plus, minus = (e[:, 0] / e.sum(1) for e in (np.exp(z + r * u) for r in (0.5, -0.5)))
    exceeded = plus > bound
    gained = float(np.mean(np.sum(w * x, axis=1)[exceeded] < 0))
    return {
        "holds": bool(0.35 < exceeded.mean() < 0.5 and (np.minimum(plus, minus) <= bound + 1e-12).all()),
        "share_exceeded": float(exceeded.mean()),
        "of_these_first_order": gained,
    }
