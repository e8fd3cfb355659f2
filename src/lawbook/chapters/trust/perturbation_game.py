"""Privacy against a recogniser that adapts: a mix of perturbations whose recognition rate no counter-measure can exceed."""

import math

import numpy as np

from lawbook.contract import Paper, count, distribution, matrix, nonnegative, positive, probability, real, record
from lawbook.trials import Coverage, Identity, Inequality

paper = Paper(
    __name__,
    title="Adversarial Image Perturbation for Privacy Protection -- A Game Theory Perspective",
    arxiv="1703.09471",
    tags=["privacy", "adversarial examples", "game theory", "minimax", "person recognition", "linear programming"],
    source="known",
    says="""A user perturbs photos to escape recognition, the recogniser processes them in answer, and neither knows the other's choice. Over a table of recognition rates this is a
    zero-sum game: a linear programme gives the user a random mix of perturbations that caps the rate whatever the counter-measure, below what any single one guarantees.""",
    notes="""The game's theory is von Neumann's. That a measured table moves the cap by no more than its largest error, and the bounds for self-play, are checked here with their
    constants. Degenerate tables have many optimal mixes: the value is unique, the mixes are not.""",
)

RATES = matrix(
    "I", "J", of=real(typical=(0, 1)), doc="recognition rate for each perturbation (row) and counter-measure (column)", example=[[0.9, 0.2, 0.5], [0.3, 0.8, 0.6], [0.6, 0.6, 0.7]]
)
COSTS = matrix("I", "J", of=real(typical=(-1, 2)), doc="recognition rate, or any cost, for each perturbation and counter-measure", example=[[0.9, 0.2], [0.3, 0.8], [0.7, 0.6]])
MEASURED = matrix("I", "J", of=probability(), doc="measured recognition rates, perturbations in rows", example=[[0.9, 0.2, 0.5], [0.3, 0.8, 0.6], [0.6, 0.6, 0.7]])
USER = distribution("I", doc="mix of perturbations", example=[0.4, 0.4, 0.2])
RECOGNISER = distribution("J", doc="mix of counter-measures", example=[0.3, 0.2, 0.5])


def optimal_mix(payoff):
    """(value, mix of rows that minimises the largest column mean): the linear programme of the row player."""
    from scipy.optimize import linprog

    low, spread = payoff.min(), np.ptp(payoff) or 1.0  # scaled to the unit interval, where the solver's tolerances are meant
    rows, columns = payoff.shape
    caps = np.column_stack([(payoff.T - low) / spread, -np.ones(columns)])
    found = linprog([*np.zeros(rows), 1], A_ub=caps, b_ub=np.zeros(columns), A_eq=[[*np.ones(rows), 0]], b_eq=[1], bounds=[*[(0, 1)] * rows, (None, None)], method="highs")
    mix = np.clip(found.x[:-1], 0, None)
    mix /= mix.sum()
    return float(np.max(mix @ payoff)), mix


@paper.algorithm(
    r"v = \min_{x \in \Delta} \max_j (x^\top A)_j = \max_{y \in \Delta} \min_i (A y)_i,\quad \max_j \min_i A_{ij} \le v \le \min_i \max_j A_{ij}",
    gives={"value": 0.55, "pure_cap": 0.7},
)
def solve_game(
    payoff: COSTS,
) -> record(
    value=real(doc="what the user's mix cannot exceed, and the recogniser's cannot fall below"),
    user=distribution("I"),
    recogniser=distribution("J"),
    pure_cap=real(doc="what the best single perturbation guarantees"),
    pure_floor=real(doc="what the best single counter-measure guarantees"),
    gain=nonnegative(doc="by which randomising lowers the cap"),
):
    """Value and optimal mixes of the game between user and recogniser."""
    a = np.asarray(payoff, float)
    value, user = optimal_mix(a)
    _, recogniser = optimal_mix(-a.T)
    cap = float(a.max(1).min())
    return {"value": value, "user": user, "recogniser": recogniser, "pure_cap": cap, "pure_floor": float(a.min(0).max()), "gain": max(cap - value, 0.0)}


@paper.bound(r"\Pr\Big[\max_j (\hat x^\top A)_j \le \hat v + \sqrt{\log(2IJ/\delta) / (2N)}\Big] \ge 1 - \delta", assumes=["Each rate is measured on its own independent images."])
def certified_cap(
    payoff: MEASURED,
    images: count("images", typical=(50, 10_000), doc="on which each rate was measured", example=1000),
    delta: probability(above=True, below=True, typical=(0.01, 0.3), doc="probability that the cap fails", example=0.1),
) -> record(cap=positive(high=1), slack=positive(doc="error of all rates at once"), user=distribution("I")):
    """Recognition rate that the mix computed from a measured table does not exceed in truth, with confidence."""
    a = np.asarray(payoff, float)
    value, user = optimal_mix(a)
    slack = math.sqrt(math.log(2 * a.size / delta) / (2 * images))
    return {"cap": min(value + slack, 1.0), "slack": slack, "user": user}


@paper.measure(r"\max_j (x^\top A)_j - \min_i (A y)_i \ge 0")
def exploitability(payoff: RATES, user: USER, recogniser: RECOGNISER) -> nonnegative():
    """What the two sides could gain together by answering each other's mixes: zero at equilibrium."""
    return max(float(np.max(user @ np.asarray(payoff, float)) - np.min(np.asarray(payoff, float) @ recogniser)), 0.0)


@paper.algorithm(
    r"x_t \propto e^{-\eta_x \sum_{s<t} A y_s},\ y_t \propto e^{\eta_y \sum_{s<t} A^\top x_s}:\quad "
    r"\mathrm{gap}(\bar x, \bar y) \le \sqrt{\tfrac{\log I}{2T}} + \sqrt{\tfrac{\log J}{2T}}",
    assumes=["The bound on the gap is for entries from 0 to 1 and the default rates."],
)
def multiplicative_weights(
    payoff: RATES,
    rounds: count("rounds", typical=(10, 1000), high=10_000_000, example=1000),
    *,
    learning_rate: positive(typical=(0.01, 1), doc="of both sides; sqrt(8 log I / rounds) and sqrt(8 log J / rounds) where not given") = None,
) -> record(value=real(doc="of the average mixes"), user=distribution("I", doc="average over rounds"), gap=nonnegative(doc="exploitability of the average mixes")):
    """Self-play by multiplicative weights, for tables that are too large for a linear programme."""
    a = np.asarray(payoff, float)
    rates = [learning_rate or math.sqrt(8 * math.log(actions) / rounds) for actions in a.shape]
    past = [np.zeros(actions) for actions in a.shape]  # sums of the mixes of each side
    for _ in range(rounds):
        scores = -rates[0] * (a @ past[1]), rates[1] * (past[0] @ a)
        mixes = [np.exp(score - score.max()) for score in scores]
        past = [total + mix / mix.sum() for total, mix in zip(past, mixes, strict=True)]
    user, recogniser = (total / total.sum() for total in past)
    return {"value": float(user @ a @ recogniser), "user": user, "gap": exploitability(a, user, recogniser)}


def pure_play(payoff):
    found = solve_game(payoff)
    return found | {"value": found["pure_cap"]}


def recogniser_in_the_users_place(payoff):
    """The column player's optimum on the transposed table, taken for the row player's."""
    found, swapped = solve_game(payoff), solve_game(-payoff)
    return found | {"user": swapped["user"]}


@paper.trial(
    Identity(rtol=0, atol=1e-9),
    of=[solve_game, exploitability],
    controls={"best single perturbation": pure_play, "mix of a user who wants recognition": recogniser_in_the_users_place},
    quick=60,
    full=300,
)
def both_programmes_agree(draw, claim):
    """On tables up to 8 x 8 neither side can gain on the other's mix, so that both programmes have one value, within the pure bounds; for 2 x 2 tables it has a formula."""
    a = draw.rng.uniform(-1, 2, (draw.integer(2, 8), draw.integer(2, 8)))
    found = claim(a)
    small = draw.rng.uniform(size=(2, 2))
    (p, q), (r, s) = small
    pure = small.max(1).min(), small.min(0).max()
    formula = pure[0] if pure[0] == pure[1] else (p * s - q * r) / (p + s - q - r)
    outside = max(found["pure_floor"] - found["value"], found["value"] - found["pure_cap"], 0)
    floor = float(np.min(a @ found["recogniser"]))
    return [exploitability(a, found["user"], found["recogniser"]), floor, formula, outside], [0, found["value"], claim(small)["value"], 0], {"shape": a.shape}


def without_union(payoff, images, delta):
    found = certified_cap(payoff, images, delta)
    return found | {"cap": found["cap"] - found["slack"]}


@paper.trial(Coverage(at_most=0.1), of=[certified_cap], controls={"the measured value itself": without_union}, quick=400, full=4000)
def cap_is_kept(draw, claim):
    """Tables measured on 200 images a rate: the true rate under the computed mix, at its worst counter-measure, exceeds the cap in at most a tenth of the cases."""
    truth = np.random.default_rng(5).uniform(0.2, 0.8, (4, 5))
    found = claim(draw.rng.binomial(200, truth) / 200, 200, 0.1)
    return float(np.max(found["user"] @ truth)) > found["cap"]


def half_the_error(payoff, images, delta):
    return certified_cap(payoff, 4 * images, delta)


@paper.trial(Inequality(atol=1e-9, search=0), of=[certified_cap, solve_game], controls={"half the slack": half_the_error}, quick=60, full=1000)
def errors_move_the_value_no_further(draw, claim):
    """If every rate is off by at most the slack, value and worst rate of the mix move by at most that; reached where all are off in one direction."""
    a = draw.rng.uniform(0.3, 0.7, (draw.integer(2, 5), draw.integer(2, 5)))
    images, delta = draw.integer(200, 2000), draw.uniform(0.05, 0.5)
    slack = math.sqrt(math.log(2 * a.size / delta) / (2 * images))
    found = claim(a, images, delta)
    truths = a + slack, a - slack, a + slack * draw.rng.choice([-1, 1], a.shape)
    values, worst = [solve_game(truth)["value"] for truth in truths], [np.max(found["user"] @ truth) for truth in truths]
    measured = solve_game(a)["value"]
    return [*worst, *np.abs(np.array(values) - measured)], [*[found["cap"]] * 3, *[found["slack"]] * 3], {"slack": slack}


def one_round(payoff, rounds):
    return multiplicative_weights(payoff, 1)


def hardly_learning(payoff, rounds):
    return multiplicative_weights(payoff, rounds, learning_rate=1e-6)


@paper.trial(
    Inequality(atol=1e-12, search=0), of=[multiplicative_weights, solve_game], controls={"a single round": one_round, "hardly any learning": hardly_learning}, quick=40, full=500
)
def self_play_converges(draw, claim):
    """The gap of self-play stays within its bound, and the value of the game within the gap."""
    a, rounds = draw.rng.uniform(size=(draw.integer(2, 8), draw.integer(2, 8))), draw.integer(200, 600)
    found, value = claim(a, rounds), solve_game(a)["value"]
    bound = sum(math.sqrt(math.log(actions) / (2 * rounds)) for actions in a.shape)
    return [found["gap"], abs(found["value"] - value), np.max(found["user"] @ a) - value], [bound, found["gap"], found["gap"]], {"rounds": rounds, "shape": a.shape}
