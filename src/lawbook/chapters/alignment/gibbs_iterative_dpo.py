"""RLHF under a KL penalty: the Gibbs optimum, what a wrong reward costs, rejection in stages, and preference learning from fresh pairs."""

import math

import numpy as np

from lawbook.contract import Paper, count, distribution, flag, matrix, nonnegative, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays, bracketed_root, logsumexp
from lawbook.trials import Estimate, Guarantee, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Iterative Preference Learning from Human Feedback: Bridging Theory and Practice for RLHF under KL-Constraint",
    arxiv="2312.11456",
    tags=["rlhf", "dpo", "kl penalty", "preference learning", "rejection sampling", "reward model", "regret", "exploration"],
    source="derived",
    says="""With a penalty on the reverse KL divergence, RLHF is a contextual bandit whose optimum tilts the reference policy exponentially by the reward. A policy
    tilted by a wrong reward then loses exactly a KL divergence, which is quadratic in the error of the reward. Two recipes follow: learn again from fresh pairs of
    one's own policy, the second answer chosen where the reward is uncertain, and reach a strong tilt by several cheap rejection steps instead of a dear one.""",
    notes="""Framework and both algorithms as in the paper; identities and constants are derived here, the constants of its rates are not used. Each pair widens S at
    once, within the round too: that takes no label. Expected draws of a chain suppose that each stage keeps a sampler of its own, as a trained policy does.""",
)

REFERENCE = distribution("n", most=8, doc="reference policy: probability of each answer to one prompt", example=[0.4, 0.3, 0.2, 0.1])
REWARDS = vector("n", of=real(), most=8, doc="reward of each answer", example=[0.0, 0.5, 1.0, 2.0])
ETA = positive(typical=(0.05, 3), doc="coefficient of the KL penalty", example=0.5)


def log_policy(reference, rewards, eta):
    """(log of the tilted policy, log of its normaliser)."""
    with np.errstate(divide="ignore"):
        tilted = np.log(np.asarray(reference, float)) - np.log(np.sum(reference)) + np.asarray(rewards, float) / eta
    total = logsumexp(np, tilted)
    return tilted - total, float(total)


def expectation(p, values):
    return float(np.sum(np.where(p > 0, p * np.where(p > 0, values, 0), 0)))


@paper.law(r"\pi_r(a) = \pi_0(a)\, e^{r(a)/\eta} / Z,\quad \max_\pi \mathbb{E}_\pi r - \eta\, \mathrm{KL}(\pi \| \pi_0) = \eta \log Z")
def gibbs_policy(reference: REFERENCE, rewards: REWARDS, eta: ETA) -> record(policy=distribution("n"), log_normaliser=real("nats"), value=real(doc="largest penalised reward")):
    """The policy with the largest reward after the KL penalty, and that value."""
    log_p, log_z = log_policy(reference, rewards, eta)
    return {"policy": np.exp(log_p), "log_normaliser": log_z, "value": eta * log_z}


@paper.law(
    r"J(\pi^*) - J(\hat\pi) = \eta\, \mathrm{KL}(\hat\pi \| \pi^*) = \mathbb{E}_{\pi^*}[r^* - \hat r] + \mathbb{E}_{\hat\pi}[\hat r - r^*] - \eta\, \mathrm{KL}(\pi^* \| \hat\pi)"
)
def kl_regret(
    reference: REFERENCE,
    true_rewards: REWARDS,
    used_rewards: vector("n", of=real(), most=8, doc="reward by which the policy was tilted; a constant added to all changes nothing", example=[0.2, 0.3, 1.5, 1.5]),
    eta: ETA,
) -> record(regret=real(doc="difference of the penalised rewards"), kl_form=nonnegative(), split_form=real()):
    """Penalised reward lost by the optimal policy of a wrong reward, in three forms that agree up to rounding."""
    best, _ = log_policy(reference, true_rewards, eta)
    used, _ = log_policy(reference, used_rewards, eta)
    p_best, p_used, prior = np.exp(best), np.exp(used), log_policy(reference, np.zeros(len(best)), 1.0)[0]
    r, error = np.asarray(true_rewards, float), np.asarray(used_rewards, float) - true_rewards
    values = [expectation(p, r - eta * np.where(p > 0, log_p - np.where(p > 0, prior, 0), 0)) for p, log_p in ((p_best, best), (p_used, used))]
    ratio = np.where(p_used > 0, used - np.where(p_used > 0, best, 0), 0)
    back = np.where(p_best > 0, best - np.where(p_best > 0, used, 0), 0)
    return {
        "regret": values[0] - values[1],
        "kl_form": max(eta * expectation(p_used, ratio), 0.0),
        "split_form": expectation(p_used, error) - expectation(p_best, error) - eta * expectation(p_best, back),
    }


@paper.bound(
    r"J(\pi^*) - J(\hat\pi) \le \frac{\mathrm{span}(\hat r - r^*)^2}{8\eta}",
    assumes=["Of the rewards' error only its span over the answers of a prompt matters; the regret is also below that span itself, which is less where it exceeds 8 eta."],
    closed_form=True,
    gives=0.25,
)
def reward_error_regret(error_span: positive(typical=(0.01, 4), doc="largest minus smallest error of the reward over the answers", example=1.0), eta: ETA) -> nonnegative():
    """Most that the policy of a wrong reward can lose after the KL penalty."""
    _, span, eta = arrays(error_span, eta)
    return span**2 / (8 * eta)


@paper.algorithm(r"\mathrm{acc}_i = \frac{\mathbb{E}_0\, e^{(r - r_{\max})/\eta_i}}{\mathbb{E}_0\, e^{(r - r_{\max})/\eta_{i-1}}} = \mathrm{acc}^{1/N}")
def rejection_schedule(reference: REFERENCE, rewards: REWARDS, eta: ETA, stages: count("stages", typical=(1, 10), high=10_000, example=3)) -> record(
    etas=vector("stages", of=positive(infinite=True, doc="the last is eta")),
    acceptances=vector("stages", of=probability(doc="a draw of the stage before is kept with exp((r - r_max)(1/eta_i - 1/eta_(i-1)))")),
    expected_draws=positive("draws", infinite=True, doc="sum over the stages of draws for one that is kept"),
    one_step_draws=positive("draws", infinite=True, doc="draws of the reference for one answer of the tilted policy"),
):
    """The chain of rejection steps with the fewest draws: equal acceptance at every stage."""
    p = np.asarray(reference, float)
    below = np.asarray(rewards, float)[p > 0] - np.max(np.asarray(rewards, float)[p > 0])
    p = p[p > 0] / p.sum()

    def log_kept(tilt):
        """Log of the share of reference draws that one rejection step to this 1/eta keeps."""
        lost = float(p @ np.expm1(below * tilt))
        return min(math.log1p(lost) if lost > -0.5 else float(logsumexp(np, np.log(p) + below * tilt)), 0.0)

    last = 1 / eta
    total = log_kept(last)
    share = np.arange(1, stages) / stages
    tilts = [bracketed_root(lambda t, goal=goal: log_kept(t) - goal, 0.0, last) if total < 0 else last * f for f, goal in zip(share, total * share, strict=True)]
    with np.errstate(over="ignore", divide="ignore"):
        return {
            "etas": 1 / np.array([*tilts, last]),
            "acceptances": np.full(stages, math.exp(total / stages)),
            "expected_draws": float(stages * np.exp(-total / stages)),
            "one_step_draws": float(np.exp(-total)),
        }


def logistic_fit(x, y, start):
    """Minimiser of sum log(1 + exp(-y x.theta)) + |theta|^2/2 by Newton's method with halved steps."""
    from scipy.special import expit

    def objective(theta):
        return np.logaddexp(0, -y * (x @ theta)).sum() + theta @ theta / 2

    theta, value = start, objective(start)
    for _ in range(50):
        wrong = expit(-y * (x @ theta))
        gradient = theta - x.T @ (y * wrong)
        step = np.linalg.solve(np.eye(len(theta)) + (x.T * (wrong * (1 - wrong))) @ x, gradient)
        while (new := objective(theta - step)) > value + 1e-12 * abs(value) and step @ step > 1e-24:
            step = step / 2
        theta, value = theta - step, new
        if gradient @ gradient < 1e-18:
            break
    return theta


@paper.algorithm(
    r"\hat\theta = \arg\min \sum_s \log(1 + e^{-y_s x_s \cdot \theta}) + \tfrac12 |\theta|^2,\quad x = \phi(a) - \phi(b),"
    r"\ a \sim \pi_{\hat r},\ b \sim \pi_{\hat r + |\phi - \phi(a)|_{S^{-1}}}"
)
def iterate_dpo(
    features: matrix("n", "d", most=5, doc="features of each answer to the prompt", example=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.5]]),
    true_theta: vector("d", doc="the true reward is features times this", example=[1.0, -0.5]),
    *,
    rounds: count("rounds", typical=(1, 10), high=100_000, example=5),
    pairs: count("pairs", typical=(1, 30), high=1_000_000, doc="labelled pairs of a round", example=20),
    eta: ETA,
    seed: seed(example=0),
    explore: flag(doc="draw the second answer where the reward is uncertain; else from the policy") = True,
) -> record(regret=vector("rounds", of=nonnegative(), doc="after each round")):
    """Regret of the policy that learns each round from labelled pairs of its own answers (one prompt, even reference)."""
    rng, phi = np.random.default_rng(seed), np.asarray(features, float)
    phi = phi - phi.mean(0)  # only differences matter
    truth, even = phi @ np.asarray(true_theta, float), np.full(len(phi), 1 / len(phi))
    theta, inverse = np.zeros(phi.shape[1]), np.eye(phi.shape[1])
    lengths = np.einsum("nd,nd->n", phi, phi)  # phi S^-1 phi' of each answer
    x, y, regret = np.empty((0, len(theta))), np.empty(0), []

    def tilted(reward):
        weights = np.exp((reward - reward.max()) / eta)
        return weights / weights.sum()

    for _ in range(rounds):
        a, b = rng.choice(len(phi), (2, pairs), p=tilted(phi @ theta))
        for i in range(pairs if explore else 0):
            first = phi[a[i]]
            bonus = np.sqrt(np.maximum(lengths - 2 * (phi @ (inverse @ first)) + lengths[a[i]], 0))
            cumulated = np.cumsum(tilted(phi @ theta + bonus))
            b[i] = min(np.searchsorted(cumulated, rng.uniform()), len(phi) - 1)
            moved = inverse @ (first - phi[b[i]])
            scale = 1 + (first - phi[b[i]]) @ moved
            inverse, lengths = inverse - np.outer(moved, moved) / scale, lengths - (phi @ moved) ** 2 / scale
        x = np.vstack([x, phi[a] - phi[b]])
        y = np.append(y, np.where(np.log(1 / rng.uniform(size=pairs) - 1) > truth[b] - truth[a], 1, -1))
        theta = logistic_fit(x, y, theta)
        regret.append(kl_regret(even, truth, phi @ theta, eta)["kl_form"])
    return {"regret": np.array(regret)}


def divergence_reversed(reference, true_rewards, used_rewards, eta):
    return kl_regret(reference, true_rewards, used_rewards, eta) | {"kl_form": kl_regret(reference, used_rewards, true_rewards, eta)["kl_form"]}


def case(draw, answers=5):
    return draw.dirichlet(draw.log_uniform(0.3, 5), answers), draw.normal(size=answers), draw.normal(size=answers), draw.log_uniform(0.05, 3)


@paper.trial(Identity(rtol=1e-10, atol=1e-10), of=[kl_regret, gibbs_policy], controls={"divergence of the optimum from the policy": divergence_reversed}, quick=200, full=5000)
def three_forms(draw, claim):
    """The three forms equal the difference of penalised rewards computed from its definition, and the optimum's is eta log Z."""
    p, r, used, eta = case(draw)

    def penalised(q):
        return q @ r - eta * (q @ np.log(q / p))

    policies = [(w := p * np.exp((reward - reward.max()) / eta)) / w.sum() for reward in (r, used)]
    policies = [np.maximum(q, 1e-300) for q in policies]
    best, regret = penalised(policies[0]), penalised(policies[0]) - penalised(policies[1])
    found, gibbs = claim(p, r, used, eta), gibbs_policy(p, r, eta)
    return [found["regret"], found["kl_form"], found["split_form"], gibbs["value"], *gibbs["policy"]], [regret] * 3 + [best, *policies[0]], {"eta": eta}


def sixteen(error_span, eta):
    return reward_error_regret(error_span, 2 * eta)


@paper.trial(Inequality(atol=1e-12, reaches=0.95), of=[reward_error_regret, kl_regret], controls={"span^2 / 16 eta": sixteen}, quick=200, full=10_000)
def price_of_a_wrong_reward(draw, claim):
    """The regret never exceeds span^2 / 8 eta, which is nearly attained, nor the span."""
    p, r, used, eta = case(draw)
    used = r + draw.log_uniform(0.01, 2) * (used - r)
    regret, span = kl_regret(p, r, used, eta)["kl_form"], np.ptp(used - r)
    return [regret, regret], [claim(span, eta), span], {"span": span, "eta": eta}


def steps_even_in_tilt(reference, rewards, eta, stages):
    return rejection_schedule(reference, rewards, eta, stages) | {"etas": eta * stages / np.arange(1, stages + 1)}


@paper.trial(Identity(), of=[rejection_schedule], controls={"steps even in 1/eta": steps_even_in_tilt}, quick=20, full=200)
def chain_simulated(draw, claim):
    """Simulated rejections keep the stated share at each stage, and what the last one keeps follows the tilted policy; the shares multiply to that of one step."""
    p, r, _, _ = case(draw)
    eta, stages, draws = draw.uniform(0.1, 2), draw.integer(2, 5), 20_000
    found = claim(p, r, eta, stages)
    shares, before, law = [], 0.0, p
    for tilt in 1 / found["etas"]:
        drawn = draw.rng.choice(len(p), draws, p=law)
        kept = drawn[draw.rng.uniform(size=draws) < np.exp((r[drawn] - r.max()) * (tilt - before))]
        shares.append(len(kept) / draws)
        law, before = p * np.exp((r - r.max()) * tilt), tilt
        law = law / law.sum()
    watched = np.argmin(np.abs(law - 0.5))
    shares.append(np.mean(kept == watched))
    expected = np.array([*found["acceptances"], gibbs_policy(p, r, eta)["policy"][watched]])
    errors = np.sqrt(expected * (1 - expected) / np.append(np.full(stages, draws), len(kept))) + 1 / draws  # a whole draw is the least that can be off
    one_step = 1 / np.exp((r - r.max()) / eta).dot(p)
    return Estimate([*shares, one_step, one_step], [*errors, 0, 0]), [*expected, found["one_step_draws"], 1 / np.prod(found["acceptances"])], {"stages": stages, "eta": eta}


def all_in_the_last_stage(reference, rewards, eta, stages):
    found = rejection_schedule(reference, rewards, eta, stages)
    return found | {"expected_draws": stages - 1 + found["one_step_draws"]}


@paper.trial(Guarantee(), of=[rejection_schedule], controls={"all work in the last stage": all_in_the_last_stage}, quick=200, full=5000)
def fewest_draws(draw, claim):
    """No other schedule of as many stages, drawn at random, costs fewer draws; one stage costs what one step does."""
    p, r, _, eta = case(draw)
    stages = draw.integer(1, 5)
    tilts = np.sort(np.append(draw.uniform(size=stages - 1), 1.0)) / eta
    kept = np.exp((r - r.max()) * tilts[:, None]) @ p
    found = claim(p, r, eta, stages)
    other = np.sum(np.append(1, kept[:-1]) / kept)
    return [found["expected_draws"], claim(p, r, eta, 1)["one_step_draws"]], [other, claim(p, r, eta, 1)["expected_draws"]], {"stages": stages}


def never_learns(features, true_theta, *, rounds, eta, **_):
    flat = kl_regret(np.full(len(features), 1 / len(features)), features @ true_theta, np.zeros(len(features)), eta)["kl_form"]
    return {"regret": np.full(rounds, flat)}


@paper.trial(Rate(within=0.0, one_sided=True), of=[iterate_dpo], controls={"never refits": never_learns}, quick=1, full=1)
def regret_falls(draw, claim, effort="quick"):
    """The median regret over runs (12 answers, 3 features, 20 pairs a round) falls with the rounds, at a slope of -1/2 or steeper in logarithms."""
    runs, regrets = 20 if effort == "quick" else 200, []
    for _ in range(runs):
        features, theta = draw.rng.normal(size=(12, 3)), draw.rng.normal(size=3)
        run = claim(features, theta / np.linalg.norm(theta), rounds=40, pairs=20, eta=0.5, seed=int(draw.rng.integers(2**60)))
        regrets.append(run["regret"])
    return np.arange(1, 41), np.median(regrets, 0), -0.5
