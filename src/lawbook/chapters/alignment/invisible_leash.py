"""The leash of reward training: how much mass a divergence budget can move to correct answers, and what is kept, lost or newly solved on the way."""

import math

import numpy as np

from lawbook.contract import Paper, count, distribution, either, flag, nonnegative, probability, real, record, vector
from lawbook.numerics import arrays, bracketed_root, logsumexp, statistics
from lawbook.trials import Estimate, Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="The Invisible Leash: Why RLVR May Not Escape Its Origin",
    arxiv="2507.14843",
    tags=["reinforcement learning", "rlvr", "reasoning", "kl divergence", "support", "pass@k", "entropy", "exploration"],
    source="derived",
    says="""Training that reweights what the base model samples cannot reach answers that the base never gives, and a budget of KL divergence limits how far it can raise the rare
    correct ones: the exact limit is attained by exponential tilting. Better pass@1 often comes with fewer problems solved in many samples; counting which problems are
    preserved, lost, or newly solved makes that visible.""",
    notes="""The limits are data processing and exponential tilting, checked here; the paper states the support argument and measures the rest. Its account of entropy (that it
    falls) is a typical observation and no theorem: see the finding. The four ratios of `support_change` follow the paper's second version from memory.""",
)

BASE_MASS = probability(typical=(1e-4, 0.9), doc="probability q of a correct answer under the base model", example=0.05)
BUDGET = nonnegative("nats", infinite=True, typical=(0.01, 3), doc="KL divergence of the trained from the base model that is allowed; infinite: any", example=0.5)


def bernoulli_kl(q, x):
    """kl(q + x, q) of two coins, as a sum of two nonnegative terms that keep their digits for small x."""
    from scipy.special import xlog1py

    total = 0.0
    for base, u in ((q, x / q), (1 - q, -x / (1 - q))):
        small = abs(u) < 0.02  # (1 + u) log(1 + u) - u = sum_n (-u)^n / (n (n - 1))
        total += base * (sum((-u) ** n / (n * (n - 1)) for n in range(2, 11)) if small else float(xlog1py(1 + u, u)) - u)
    return total


@paper.bound(
    r"\pi(A) \le \max\{p \in [q, 1] : p \log\tfrac{p}{q} + (1 - p) \log\tfrac{1 - p}{1 - q} \le D\},\quad D = \mathrm{KL}(\pi \| \mathrm{base})",
    assumes=["The divergence is that of the answers to one prompt."],
)
def leash_mass(base_probability: BASE_MASS, kl_budget: BUDGET) -> probability():
    """Largest probability of a correct answer within a KL budget, whatever the training; exponential tilting attains it."""
    q, budget = base_probability, kl_budget
    if q in (0.0, 1.0) or budget == 0:
        return q
    if budget >= -math.log(q):
        return 1.0
    low = math.sqrt(budget) * math.sqrt(q * (1 - q))  # the divergence is at most x^2 / (q (1-q))
    return min(q + bracketed_root(lambda x: bernoulli_kl(q, x) - budget, low, 1 - q), 1.0) if low < 1 - q else 1.0


@paper.bound(r"\mathrm{pass@}k \le 1 - (1 - \pi_{\max})^k,\quad \pi_{\max}\ \text{the leash}", assumes=["The k samples are independent."])
def leash_pass_at_k(base_probability: BASE_MASS, kl_budget: BUDGET, samples: count("samples", typical=(1, 1000), doc="k", example=8)) -> probability():
    """Largest pass@k on a problem that training within a KL budget can reach."""
    mass = leash_mass(base_probability, kl_budget)
    return -math.expm1(samples * math.log1p(-mass)) if mass < 1 else 1.0


@paper.law(
    r"\pi_\beta \propto q\, e^{\beta R},\quad \frac{dE[R]}{d\beta} = \mathrm{Var}(R),\ \frac{d\mathrm{KL}}{d\beta} = \beta\, \mathrm{Var}(R),"
    r"\ \frac{dH}{d\beta} = -\mathrm{Cov}(R, \log q) - \beta\, \mathrm{Var}(R)",
    assumes=["KL-regularised training has converged; beta is the inverse of its KL coefficient."],
    closed_form=True,
)
def tilted_policy(
    probabilities: distribution("n", most=10, doc="q, of the base model", example=[0.7, 0.2, 0.06, 0.04]),
    rewards: vector("n", of=real(low=-1e100, high=1e100, typical=(0, 1)), most=10, doc="reward of each answer", example=[0.0, 0.0, 1.0, 1.0]),
    strength: real(low=-1e100, high=1e100, typical=(0, 8), doc="beta", example=2.0),
) -> record(
    probabilities=distribution("n"),
    expected_reward=real(),
    entropy=nonnegative("nats"),
    kl=nonnegative("nats", doc="divergence from the base model"),
    entropy_slope=real("nats", doc="derivative of the entropy in beta: negative where training sharpens"),
):
    """Optimum of KL-regularised reward training from a base model, what it spends, and whether its entropy is falling."""
    xp, q, reward, beta = arrays(probabilities, rewards, strength)
    there = q > 0
    log_q = xp.log(xp.where(there, q, 1.0))
    highest = xp.max(beta[..., None] * reward, axis=-1, keepdims=True)
    tilt = xp.where(there, log_q + beta[..., None] * reward - highest, -xp.inf)
    log_p = xp.where(there, tilt - logsumexp(xp, tilt)[..., None], 0.0)
    p = xp.where(there, xp.exp(log_p), 0.0)
    mean = xp.sum(p * reward, axis=-1)
    off = reward - mean[..., None]
    surprise = log_q - xp.sum(p * log_q, axis=-1, keepdims=True)
    return {
        "probabilities": p,
        "expected_reward": mean,
        "entropy": -xp.sum(p * log_p, axis=-1),
        "kl": xp.maximum(xp.sum(p * (log_p - log_q), axis=-1), xp.zeros_like(mean)),
        "entropy_slope": -xp.sum(p * off * surprise, axis=-1) - beta * xp.sum(p * off**2, axis=-1),
    }


@paper.measure(
    r"\text{pass@}k = 1 - \binom{n-c}{k} \Big/ \binom{n}{k}",
    requires={
        "correct must be at most samples": lambda correct, samples: bool(np.all(np.asarray(correct) <= samples)),
        "k must be at most samples": lambda k, samples: bool(np.all(np.asarray(samples) >= k)),
    },
    sample=lambda rng: {"samples": 50, "correct": int(rng.integers(51)) if rng.uniform() < 0.5 else rng.integers(0, 51, size=4), "k": int(rng.integers(1, 51))},
)
def pass_at_k(
    samples: either(count("samples", doc="n: attempts made at a problem", example=16), vector("problems", of=count("samples"))),
    correct: either(count("samples", low=0, doc="c: attempts that succeeded", example=3), vector("problems", of=count("samples", low=0))),
    k: count("samples", doc="attempts that the estimate is for", example=4),
) -> probability():
    """Unbiased estimate of the probability that k attempts hold a success; of several problems, the mean of their estimates."""
    return float(statistics.pass_at_k(samples, correct, k).mean())


@paper.measure(
    r"\text{retention} = \frac{P}{P + S},\ \text{discovery} = \frac{E}{P + E},\ \text{score: their harmonic mean},\ \text{net change} = \frac{E - S}{P + E + S}",
    assumes=["Solved means at least one correct answer in the same number of samples before and after: at a larger number, fewer problems count as lost or new."],
)
def support_change(
    base_solved: vector("n", of=flag(), most=30, doc="problems that the base model solves", example=[1, 1, 1, 1, 0, 0, 0]),
    trained_solved: vector("n", of=flag(), most=30, doc="problems that the trained model solves", example=[1, 1, 1, 0, 1, 0, 0]),
) -> record(
    preserved=count("problems", low=0, doc="P: solved by both"),
    shrunk=count("problems", low=0, doc="S: solved by the base model only"),
    expanded=count("problems", low=0, doc="E: solved by the trained model only"),
    outside=count("problems", low=0, doc="solved by neither"),
    retention=probability(nan=True, doc="NaN where the base model solves nothing"),
    discovery=probability(nan=True, doc="NaN where the trained model solves nothing"),
    score=probability(nan=True, doc="NaN where one of the two is"),
    net_change=real(low=-1, high=1, nan=True, doc="NaN where nothing is solved"),
):
    """What reward training keeps, loses and gains of the problems that can be solved at all."""
    base, trained = np.asarray(base_solved, bool), np.asarray(trained_solved, bool)
    kept, lost, new = (int(np.sum(part)) for part in (base & trained, base & ~trained, ~base & trained))
    retention = kept / (kept + lost) if kept + lost else math.nan
    discovery = new / (kept + new) if kept + new else math.nan
    total = retention + discovery
    return {
        "preserved": kept,
        "shrunk": lost,
        "expanded": new,
        "outside": len(base) - kept - lost - new,
        "retention": retention,
        "discovery": discovery,
        "score": 2 * retention * discovery / total if total else total,
        "net_change": (new - lost) / (kept + new + lost) if kept + new + lost else math.nan,
    }


def pinsker(base_probability, kl_budget):
    return min(base_probability + math.sqrt(kl_budget / 2), 1.0)


def in_proportion(base_probability, kl_budget):
    return min(base_probability * (1 + kl_budget), 1.0)


def in_proportion_at_k(base_probability, kl_budget, samples):
    return 1 - (1 - in_proportion(base_probability, kl_budget)) ** samples


def divergence(p, q):
    return float(np.sum(p * np.log(p / q)))


@paper.trial(
    Inequality(rtol=1e-9, atol=1e-12),
    of=[leash_mass, leash_pass_at_k],
    claim=(leash_mass, leash_pass_at_k),
    controls={"mass grows with the budget": (in_proportion, in_proportion_at_k)},
    quick=300,
    full=10_000,
)
def no_policy_gets_further(draw, claim):
    """No random policy puts more mass on a random set of answers than its own divergence from the base allows, nor reaches a higher pass@k."""
    n, k = draw.integer(2, 10), draw.integer(1, 50)
    q, p = (draw.dirichlet(draw.log_uniform(0.2, 5), n) + 1e-12 for _ in range(2))
    q, p = q / q.sum(), p / p.sum()
    wanted = np.arange(n) < draw.integer(1, n - 1)
    mass, base, budget = float(p[wanted].sum()), float(q[wanted].sum()), max(divergence(p, q), 0.0)
    return [mass, 1 - (1 - mass) ** k], [claim[0](base, budget), claim[1](base, budget, k)], {"base": base, "budget": budget, "samples": k}


@paper.trial(Identity(rtol=1e-9), of=[leash_mass, tilted_policy], controls={"Pinsker's bound": pinsker}, quick=200, full=10_000)
def tilting_attains_it(draw, claim):
    """A policy tilted towards a set spends exactly the budget at which the leash ends there, keeps the ratios inside the set, and moves no log-probability by more than beta."""
    n, beta = draw.integer(2, 10), draw.log_uniform(1e-6, 12)
    q = draw.dirichlet(draw.log_uniform(0.3, 5), n) + 1e-9
    q, wanted = q / q.sum(), np.arange(n) < draw.integer(1, n - 1)
    told = tilted_policy(q, wanted.astype(float), beta)
    p, base = told["probabilities"], float(q[wanted].sum())
    mass = base * math.exp(beta) / (1 - base + base * math.exp(beta))
    spent = bernoulli_kl(base, mass - base)
    within = np.abs(np.log(p / q)).max() <= beta * (1 + 1e-9) + 1e-12
    found = [float(p[wanted].sum()), *(p[wanted] / p[wanted].sum()), 1 + told["kl"], within]
    return found, [claim(base, spent), *(q[wanted] / base), 1 + spent, True], {"base": base, "strength": beta}


def always_falling(probabilities, rewards, strength):
    told = tilted_policy(probabilities, rewards, strength)
    return told | {"entropy_slope": -abs(told["entropy_slope"])}


def without_cost(probabilities, rewards, strength):
    told = tilted_policy(probabilities, rewards, strength)
    p = told["probabilities"]
    return told | {"entropy_slope": told["entropy_slope"] + strength * p @ (rewards - p @ rewards) ** 2}


@paper.trial(Identity(rtol=1e-6, atol=1e-7), of=[tilted_policy], controls={"entropy always falls": always_falling, "no term beta Var(R)": without_cost}, quick=200, full=5000)
def along_the_path(draw, claim):
    """Finite differences of expected reward, divergence and entropy along beta agree with the variance of the reward, beta times it, and the stated slope."""
    n, beta, step = draw.integer(2, 10), draw.uniform(-2, 6), 1e-4
    q, rewards = draw.dirichlet(draw.log_uniform(0.3, 5), n), draw.normal(size=n)
    before, here, after = (claim(q, rewards, beta + shift) for shift in (-step, 0.0, step))
    slopes = [(after[name] - before[name]) / (2 * step) for name in ("expected_reward", "kl", "entropy")]
    variance = here["probabilities"] @ (rewards - here["probabilities"] @ rewards) ** 2
    return slopes, [variance, beta * variance, here["entropy_slope"]], {"strength": beta, "entropy": here["entropy"]}


def plug_in(samples, correct, k):
    return 1 - (1 - correct / samples) ** k


def roles_exchanged(base_solved, trained_solved):
    return support_change(trained_solved, base_solved)


@paper.trial(
    Identity(),
    of=[pass_at_k, support_change],
    claim=(pass_at_k, support_change),
    controls={"plug-in 1-(1-c/n)^k": (plug_in, support_change), "base and trained exchanged": (pass_at_k, roles_exchanged)},
    quick=10,
    full=60,
)
def from_the_attempts(draw, claim, effort):
    """Choosing k of n attempts at random, again and again, holds a success as often as estimated; problems fall into their four sets as Python's sets say."""
    from statistics import harmonic_mean

    n, problems = draw.integer(3, 25), range(draw.integer(5, 40))
    c, k = draw.integer(1, n - 1), draw.integer(2, n)
    chosen = draw.rng.uniform(size=(10_000 if effort == "quick" else 200_000, n)).argsort(1)[:, :k]
    base, trained = ({i for i in problems if i == 0 or draw.rng.uniform() < share} for share in (0.6, 0.4))
    retention, discovery = len(base & trained) / len(base), len(trained - base) / len(trained)
    estimate, change = claim
    told = change([i in base for i in problems], [i in trained for i in problems])
    counts = [len(base & trained), len(base - trained), len(trained - base), len(set(problems) - base - trained)]
    sets = [*counts, retention, discovery, harmonic_mean([retention, discovery]), (len(trained) - len(base)) / len(base | trained)]
    hits = Estimate.of((chosen < c).any(1))
    computed = Estimate([hits.value, *sets], [hits.error, *[0.0] * 8])
    return computed, [estimate(n, c, k), *told.values()], {"samples": n, "correct": c, "k": k}


def on_policy(policy):
    return policy


def exploring(policy):
    return 0.9 * policy + 0.1 / len(policy)


@paper.trial(Guarantee(), of=[leash_mass], claim=on_policy, controls={"a tenth of the samples uniform": exploring}, quick=2, full=10)
def what_is_not_sampled_is_not_learnt(draw, claim):
    """4000 exact policy-gradient steps, on answers drawn as the claim says, leave answers that the base gives with probability e^-30 below 1e-10 though they alone are rewarded."""
    logits = draw.normal(size=50)
    rewarded = np.arange(50) < 5
    logits[rewarded] = np.log(np.exp(logits[~rewarded]).sum()) - 30
    base = policy = np.exp(logits) / np.exp(logits).sum()
    for _ in range(4000):
        weights = claim(policy) * (rewarded - policy[rewarded].sum())
        logits = logits + 10 * (weights - weights.sum() * policy)
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
    mass = float(policy[rewarded].sum())
    limit = leash_mass(float(base[rewarded].sum()), max(divergence(policy, base), 0.0) + 1e-15)
    return [mass, mass], [1e-10, limit], {"mass": mass, "limit": limit}


@paper.finding(
    """Reward training does not always lower the entropy. A base with .98 on a wrong answer and .01 on each of two correct ones has .112 nats; trained onto the correct ones it has
    log 2 = .693. The sign is that of -Cov(R, log q) - beta Var(R): training towards answers that the base finds surprising first raises the entropy.""",
    trial=along_the_path,
)
def entropy_may_rise():
    q, rewards = [0.98, 0.01, 0.01], [0.0, 1.0, 1.0]
    base, hard = tilted_policy(q, rewards, 0.0), tilted_policy(q, rewards, 50.0)
    before, after, slope = float(base["entropy"]), float(hard["entropy"]), float(base["entropy_slope"])
    return {"holds": abs(before - 0.1119) < 1e-4 and abs(after - math.log(2)) < 1e-9 and slope > 0, "entropy_base": before, "entropy_trained": after, "slope_at_base": slope}
