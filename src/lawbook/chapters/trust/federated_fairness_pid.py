"""Fairness over all clients against fairness inside each: which part of a disparity shows where, and the accuracy that both limits leave."""

import numpy as np

from lawbook.contract import DomainError, Paper, array, caution, matrix, nonnegative, probability, real, record, vector
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Demystifying Local and Global Fairness Trade-offs in Federated Learning Using Partial Information Decomposition",
    arxiv="2307.11333",
    tags=["fairness", "federated learning", "partial information decomposition", "mutual information", "statistical parity", "trade-off"],
    source="code",
    says="""In federated learning a model can be fair over everybody and unfair inside clients, or the other way round. The information that predictions and clients carry about
    a sensitive attribute splits into unique, redundant and masked parts, which say exactly when the two notions agree; and a convex programme gives the least error that any
    method can reach within limits on both.""",
    notes="""The split is that of Bertschinger and others. The authors' code takes it in bits from the package dit, whose optimiser (version 2.3) often stops above the minimum:
    by up to 0.012 nats on random tables, and on the census with the country as the client by so much that the redundant part comes out negative (-0.0054 nats, where 0.00006 is
    right). Its programme for the trade-off limits the same two informations by SLSQP over the cells of the confusion tables and agrees with the one here to 1e-5 at positive
    limits; at limits of 0 its tolerance lets through some 1e-7 nats, which on the census with the country as the client is worth 0.007 of error (0.0645 for 0.0715). Here the
    programme is conic, in the mass of positive predictions of each client and group alone, as the cheapest way to place that mass is known, and its answer is moved towards the
    optimum at limits of zero until it keeps its limits exactly. Learners may use the label itself, so that the error is a limit for all of them.""",
)

EXAMPLE = [[[0.30, 0.10], [0.08, 0.12]], [[0.10, 0.05], [0.05, 0.20]]]
SUMS = {"joint must sum to 1": lambda joint: abs(np.sum(joint) - 1) <= 1e-6}
PREDICTED = array("S", "Z", "Yhat", of=probability(), doc="probability of each client, value of the sensitive attribute, and prediction", example=EXAMPLE)
LABELLED = array("S", "Z", 2, of=probability(), doc="probability of each client, value of the sensitive attribute, and label (0, 1)", example=EXAMPLE)
LIMIT = nonnegative("nats", typical=(0, 0.1), example=0.02)
DISPARITIES = record(
    unique=nonnegative("nats", doc="shows in both views: not explained by the client"),
    redundant=nonnegative("nats", doc="shows over everybody and vanishes inside clients"),
    masked=nonnegative("nats", doc="shows inside clients and cancels over everybody"),
    global_disparity=nonnegative("nats", doc="information of predictions on the attribute: unique + redundant"),
    local_disparity=nonnegative("nats", doc="the same given the client: unique + masked"),
    attribute_client=nonnegative("nats", doc="information of the client on the attribute: at least the redundant part"),
)


def information(joint):
    """Mutual information of the rows and columns of a table (nats)."""
    from scipy.special import rel_entr

    joint = np.asarray(joint, float)
    return max(float(rel_entr(joint, joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)).sum()), 0.0)


def information_inside(joint):
    """Mutual information of the last two axes given the first (nats)."""
    from scipy.special import rel_entr

    independent = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True) / np.where(joint.sum((1, 2)) > 0, joint.sum((1, 2)), 1)[:, None, None]
    return max(float(rel_entr(joint, independent).sum()), 0.0)


def least_remaining(of_client, of_prediction):
    """Smallest -H(Z | S, Yhat) over all joints with the given margins (s, z) and (z, yhat)."""
    return _binary(of_client, of_prediction) if len(of_client) == of_prediction.shape[1] == 2 else _conic(of_client, of_prediction)


def _binary(of_client, of_prediction):
    """Two clients and two predictions: one number a value of z is free, the mass moved along the diagonal of its 2 x 2 table. Newton's method with a barrier."""
    from scipy.special import xlogy

    base = of_client[:, :, None] * of_prediction[None] / np.where(of_client.sum(0) > 0, of_client.sum(0), 1)[:, None]
    low, high = -np.minimum(base[0, :, 0], base[1, :, 1]), np.minimum(base[0, :, 1], base[1, :, 0])
    free = high - low > 1e-15
    low, high, sign = low[free], high[free], np.array([[1, -1], [-1, 1]])[:, None, :]
    step = lambda moved: np.maximum(base[:, free] + sign * moved[:, None], 0)  # noqa: E731
    fixed = base[:, ~free].sum(1)

    def loss(moved, barrier):
        q = step(moved)
        total = q.sum(1) + fixed
        return xlogy(q, q).sum() - xlogy(total, total).sum() - barrier * np.log(np.maximum((moved - low) * (high - moved), 1e-300)).sum()

    moved, barrier = (low + high) / 2, 0.1
    while free.any() and barrier > 1e-14:
        for _ in range(50):
            q = step(moved)
            total = q.sum(1) + fixed
            gradient = (sign * np.log(q / total[:, None])).sum((0, 2)) - barrier * (1 / (moved - low) - 1 / (high - moved))
            curvature = np.diag((1 / q).sum((0, 2)) + barrier * ((moved - low) ** -2 + (high - moved) ** -2)) - (1 / total).sum()
            direction = -np.linalg.solve(curvature, gradient)
            decrease, here, size = -gradient @ direction, loss(moved, barrier), 1.0
            while size > 1e-12 and not (
                np.all((moved + size * direction > low) & (moved + size * direction < high)) and loss(moved + size * direction, barrier) <= here - 0.1 * size * decrease
            ):
                size /= 2
            if size <= 1e-12 or decrease < barrier * 1e-3:
                break
            moved = moved + size * direction
        barrier /= 10
    return loss(moved, 0.0) + (xlogy(base[:, ~free], base[:, ~free])).sum()


def _conic(of_client, of_prediction):
    """Any size: relative entropies of the cells that the margins allow."""
    import cvxpy as cp
    from scipy.sparse import csr_array

    s, z, y = np.nonzero((of_client[:, :, None] > 0) & (of_prediction[None] > 0))
    n, (clients, groups), answers = len(s), of_client.shape, of_prediction.shape[1]

    def summed(index, size):
        return csr_array((np.ones(n), (index, np.arange(n))), shape=(size, n))

    pair = s * answers + y
    totals = summed(pair, clients * answers)
    q = cp.Variable(n, nonneg=True)
    margins = [summed(s * groups + z, clients * groups) @ q == of_client.ravel(), summed(z * answers + y, groups * answers) @ q == of_prediction.ravel()]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.rel_entr(q, totals[pair] @ q))), margins)
    return float(problem.solve(solver=cp.CLARABEL))


@paper.measure(
    r"U = \min_{Q:\, Q_{ZY} = P_{ZY},\, Q_{ZS} = P_{ZS}} I_Q(Z; \hat Y | S),\quad R = I(Z; \hat Y) - U,\quad M = I(Z; \hat Y | S) - U",
    requires=SUMS,
    sample=lambda rng: {"joint": rng.dirichlet(np.full(8, rng.choice([0.3, 1, 5]))).reshape(2, 2, 2)},
)
def disparity_decomposition(joint: PREDICTED) -> DISPARITIES:
    """Unique, redundant and masked disparity of a joint law of client, sensitive attribute and prediction."""
    p = np.asarray(joint, float) / np.sum(joint)
    of_client, of_prediction = p.sum(2), p.sum(0)
    whole, inside, client = information(of_prediction), information_inside(p), information(of_client)
    spread = of_client[of_client > 0] @ np.log((of_client / np.where(of_client.sum(1) > 0, of_client.sum(1), 1)[:, None])[of_client > 0])  # -H(Z | S)
    unique = least_remaining(of_client, of_prediction) - spread
    unique = float(np.clip(unique, max(whole - client, 0.0), min(whole, inside)))  # bounds that hold for the exact minimum
    return {"unique": unique, "redundant": whole - unique, "masked": inside - unique, "global_disparity": whole, "local_disparity": inside, "attribute_client": client}


VALUES = vector("n", of=real(typical=(0, 1)))


@paper.measure(
    r"P(s, z, \hat y) = \tfrac{1}{n} \sum_i 1\{s_i = s, z_i = z, \hat y_i = \hat y\}",
    sample=lambda rng: {name: rng.integers(0, 2, 40) for name in ("sensitive", "client", "prediction")},
)
def disparities_from_records(
    sensitive: vector("n", of=real(), doc="code of the sensitive attribute", example=[0, 0, 0, 1, 1, 1, 0, 1, 1, 0]),
    client: vector("n", of=real(), doc="code of the client", example=[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
    prediction: vector("n", of=real(), doc="code of the prediction or decision", example=[0, 0, 1, 1, 0, 1, 0, 1, 1, 0]),
) -> DISPARITIES:
    """The decomposition of the shares in a table of records; the shares' own scatter makes disparities look larger than they are."""
    codes, counts = [], []
    for column in (client, sensitive, prediction):
        values, code = np.unique(np.asarray(column), return_inverse=True)
        codes.append(code)
        counts.append(len(values))
    joint = np.bincount(np.ravel_multi_index(codes, counts), minlength=int(np.prod(counts))).reshape(counts) / len(codes[0])
    found = disparity_decomposition(joint)
    scatter = counts[0] * (counts[1] - 1) * (counts[2] - 1) / (2 * len(codes[0]))
    if scatter > 0.2 * found["local_disparity"] > 0:
        caution(f"Without any disparity inside clients so few records would show about {scatter:.2g} nats of it.")
    return found


@paper.algorithm(
    r"\min_{q(s,z,y) \in [0,1]} \Pr[\hat Y \ne Y] \ \text{ subject to }\ I(Z; \hat Y) \le \epsilon_g,\ I(Z; \hat Y | S) \le \epsilon_l",
    requires=SUMS,
    sample=lambda rng: {"joint": rng.dirichlet(np.ones(8)).reshape(2, 2, 2), "epsilon_global": float(rng.choice([0, 0.02, 0.2])), "epsilon_local": float(rng.uniform(0, 0.1))},
    assumes=["The predictor may use client, attribute and label: its error is a lower limit for all that know less."],
)
def fairness_frontier(joint: LABELLED, epsilon_global: LIMIT, epsilon_local: LIMIT) -> record(
    error=probability(),
    channel=array("S", "Z", 2, of=probability(), doc="probability of a positive prediction for each client, attribute and label; 0 where there is nobody"),
    global_disparity=nonnegative("nats"),
    local_disparity=nonnegative("nats"),
):
    """Least error of any predictor whose global and local disparities stay within limits, and a predictor that reaches it."""
    p = np.asarray(joint, float) / np.sum(joint)
    mass, wanted = p.sum(2), p[:, :, 1]
    disparities = lambda a: (information(np.stack([mass - a, a], 2).sum(0)), information_inside(np.stack([mass - a, a], 2)))  # noqa: E731
    fair = _positives(mass, wanted, 0.0, 0.0)
    a = _positives(mass, wanted, epsilon_global, epsilon_local) if epsilon_global or epsilon_local else fair
    # both informations are convex in a and vanish at `fair`: a step towards it brings back what the solver left over
    over = [1 - limit / found for limit, found in zip((epsilon_global, epsilon_local), disparities(a), strict=True) if found > limit > 0]
    a = a + max(over, default=0.0) * (fair - a)
    placed = np.stack([np.maximum(a - wanted, 0), np.minimum(a, wanted)], 2)
    whole, inside = disparities(a)
    channel = np.clip(placed / np.where(p > 0, p, 1), 0, 1)
    return {"error": float(np.abs(a - wanted).sum()), "channel": channel, "global_disparity": whole, "local_disparity": inside}


def _positives(mass, wanted, epsilon_global, epsilon_local):
    """Mass of positive predictions for each client and group. Labels are served first, so that the error of a mass a is |a - P(s, z, Y = 1)|."""
    import cvxpy as cp

    a = cp.Variable(mass.shape)
    of_group, of_client = mass.sum(0), mass.sum(1)
    given_client = mass / np.where(of_client > 0, of_client, 1)[:, None]
    everywhere, inside = cp.sum(a) * of_group, cp.multiply(given_client, cp.reshape(cp.sum(a, axis=1), (len(mass), 1), order="C") @ np.ones((1, mass.shape[1])))
    limits = [a >= 0, a <= mass]
    for positive, total, independent, limit in ((cp.sum(a, axis=0), of_group, everywhere, epsilon_global), (a, mass, inside, epsilon_local)):
        if limit == 0:
            limits.append(positive == independent)
        else:
            limits.append(cp.sum(cp.rel_entr(positive, independent)) + cp.sum(cp.rel_entr(total - positive, total - independent)) <= limit)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.abs(a - wanted))), limits)
    problem.solve(solver=cp.CLARABEL)
    if a.value is None:
        raise DomainError(f"joint must allow the programme to be solved; the solver said {problem.status}.")
    return np.clip(a.value, 0, mass)


@paper.bound(
    r"I(Z; \hat Y | S) = 0 \;\Rightarrow\; I(Z; \hat Y) \le I(Z; S)",
    requires=SUMS,
    sample=lambda rng: {"joint": rng.dirichlet(np.ones(6)).reshape(3, 2)},
    assumes=["Predictions are independent of the attribute inside each client."],
)
def residual_global(
    joint: matrix("S", "Z", of=probability(), doc="probability of each client and value of the sensitive attribute", example=[[0.4, 0.1], [0.2, 0.3]]),
) -> nonnegative("nats"):
    """Largest global disparity that local fairness can leave: the information of the client on the attribute."""
    return information(np.asarray(joint, float) / np.sum(joint))


def canonical():
    """Joint laws over clients, attribute and prediction with known answers in bits: one where each part is all there is."""
    cube = lambda cells: np.bincount(np.ravel_multi_index(np.transpose(cells), (2, 2, 2)), minlength=8).reshape(2, 2, 2) / len(cells)  # noqa: E731
    unique = cube([(s, z, z) for s in (0, 1) for z in (0, 1)])
    redundant = cube([(0, 0, 0), (1, 1, 1)])
    masked = cube([(s, z, s ^ z) for s in (0, 1) for z in (0, 1)])
    return {"unique": unique, "redundant": redundant, "masked": masked}


def least_by_search(p):
    """The least local information over the two free numbers, by a grid that closes in."""
    from scipy.special import xlogy

    of_client, of_prediction = p.sum(2), p.sum(0)
    low = np.maximum(0, of_client[0] + of_prediction[:, 0] - p.sum((0, 2)))
    high = np.minimum(of_client[0], of_prediction[:, 0])
    ends, best = (low, high), None
    for _ in range(40):
        corner = np.meshgrid(*[np.linspace(a, b, 41) for a, b in zip(*ends, strict=True)], indexing="ij")  # mass of s = 0, yhat = 0 for both z
        cells = [np.stack([c, of_client[0, z] - c, of_prediction[z, 0] - c, of_client[1, z] - of_prediction[z, 0] + c]) for z, c in enumerate(corner)]
        cells = np.maximum(cells, 0)
        value = xlogy(cells, cells).sum((0, 1)) - xlogy(cells.sum(0), cells.sum(0)).sum(0)
        best = np.array([c.ravel()[value.argmin()] for c in corner])
        half = (ends[1] - ends[0]) / 3
        ends = np.clip(best - half / 2, low, high), np.clip(best + half / 2, low, high)
    return value.min() - xlogy(of_client, of_client).sum() + xlogy(of_client.sum(1), of_client.sum(1)).sum()


def second_margin_dropped(joint):
    found = disparity_decomposition(joint)
    return found | {"unique": 0.0, "redundant": found["global_disparity"], "masked": found["local_disparity"]}  # S = Yhat is allowed then


def least_of_information(joint):
    found = disparity_decomposition(joint)
    shared = min(found["global_disparity"], found["attribute_client"])
    return found | {"unique": found["global_disparity"] - shared, "redundant": shared, "masked": found["local_disparity"] - found["global_disparity"] + shared}


@paper.trial(
    Identity(rtol=0, atol=1e-5),
    of=[disparity_decomposition, disparities_from_records],
    controls={"only the margin of predictions kept": second_margin_dropped, "redundant as the smaller information": least_of_information},
    quick=8,
    full=60,
)
def by_search(draw, claim):
    """The split is known where one part is all there is, agrees with a search over both free numbers, and with itself after an empty client forces the conic programme."""
    p = draw.dirichlet(draw.choice([0.3, 1.0, 5.0]), 8).reshape(2, 2, 2)
    name, exact = draw.choice(list(canonical().items()))
    records = np.repeat(np.argwhere(exact > 0), 5, axis=0)
    found = [claim(exact), claim(p), claim(np.concatenate([p, np.zeros((1, 2, 2))]))]
    least = least_by_search(p)
    known = [np.log(2) * (part == name) for part in ("unique", "redundant", "masked")]
    rebuilt = disparities_from_records(records[:, 1], records[:, 0], records[:, 2])[name]
    return [*[found[0][part] for part in ("unique", "redundant", "masked")], found[1]["unique"], found[2]["unique"], rebuilt], [*known, least, least, np.log(2)], {"joint": p}


def information_of_prediction(joint):
    return 0.9 * residual_global(joint)


@paper.trial(
    Inequality(atol=1e-9, reaches=0.99, search=100, starts=1),
    of=[residual_global, disparity_decomposition],
    controls={"a tenth less": information_of_prediction},
    quick=40,
    full=500,
)
def what_local_fairness_leaves(draw, claim):
    """With predictions independent of the attribute inside each client, the global disparity is at most the client's information, and none of it is unique."""
    of_client = draw.dirichlet(draw.choice([0.3, 1.0, 5.0]), 4).reshape(2, 2)
    rate = draw.uniform(0, 1, 2) if draw.choice([True, False]) else np.array([1e-9, 1 - 1e-9])
    found = disparity_decomposition(np.stack([of_client * (1 - rate[:, None]), of_client * rate[:, None]], 2))
    return [found["global_disparity"], found["unique"]], [claim(of_client), 1e-6]  # the second is what a solver may be off


def global_limit_alone(joint, epsilon_global, epsilon_local):
    return fairness_frontier(joint, epsilon_global, 10.0)


def fair_constant(joint, epsilon_global, epsilon_local):
    error = min(joint[:, :, 1].sum(), joint[:, :, 0].sum())
    return {"error": error, "channel": np.full(joint.shape, float(joint[:, :, 1].sum() > 0.5)), "global_disparity": 0.0, "local_disparity": 0.0}


@paper.trial(Guarantee(atol=2e-7), of=[fairness_frontier], controls={"local limit forgotten": global_limit_alone, "constant predictor": fair_constant}, quick=6, full=60)
def no_fair_predictor_is_better(draw, claim):
    """A channel within its limits has the error stated and no random channel with the same disparities has less; a wider limit costs nothing."""
    joint = draw.dirichlet(1.0, 12).reshape(3, 2, 2)
    label = np.array([0.0, 1.0])
    channel = label + draw.uniform(0, 0.3) * (draw.uniform(0, 1, (3, 2, 2)) - label)
    positive = joint * channel
    table = np.stack([(joint - positive).sum(2), positive.sum(2)], 2)
    limits, error = (information(table.sum(0)), information_inside(table)), positive[..., 0].sum() + (joint - positive)[..., 1].sum()
    found, tight, zero = claim(joint, *limits), claim(joint, limits[0] / 2, limits[1] / 3), claim(joint, 0.0, 0.0)
    told = joint * found["channel"]
    again = np.stack([(joint - told).sum(2), told.sum(2)], 2)
    constant = min(joint[..., 1].sum(), joint[..., 0].sum())
    achieved = [found["error"], information(again.sum(0)), information_inside(again), abs(told[..., 0].sum() + (joint - told)[..., 1].sum() - found["error"])]
    promised = [error, limits[0], limits[1], 0]
    return [*achieved, found["error"], tight["error"], zero["error"]], [*promised, tight["error"], zero["error"], constant]


@paper.finding(
    """With the census's workclass as the client and income as the prediction, over half of the disparity by sex is unique and the rest redundant;
    with marital status as the client nearly all of it is redundant, and parity inside each client could leave all of it.""",
    data="adult",
)
def census(data):
    sex, income = (np.asarray(data["sex"]) == "Male").astype(int), np.asarray(data["income"])
    found = {name: disparities_from_records(sex, np.unique(data[name], return_inverse=True)[1], income) for name in ("workclass", "marital_status")}
    work, marital = found.values()
    holds = 0.5 < work["unique"] / work["global_disparity"] < 0.6 and marital["redundant"] > 0.99 * marital["global_disparity"]
    return {"holds": bool(holds), **found}
