"""Entropy in reinforcement learning for reasoning: what reward costs in entropy, which tokens pay for it, and which to mute."""

import numpy as np

from lawbook.contract import Paper, caution, choice, flag, integer, nonnegative, positive, real, record, seed, vector
from lawbook.numerics import arrays, logsumexp, softmax
from lawbook.trials import Counts, Distribution, Estimate, Forecast, Guarantee, Identity, Prediction

paper = Paper(
    __name__,
    title="The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
    arxiv="2505.22617",
    tags=["reinforcement learning", "entropy", "policy gradient", "grpo", "exploration", "reasoning", "clip-cov", "kl-cov"],
    source="code",
    says="""Without an entropy bonus, reward is bought with policy entropy along R = -a exp(H) + b, so that b - a is the ceiling, met when the entropy is used up. A
    step changes the entropy by minus the covariance between log-probability and logit change. Few tokens carry most of that covariance: muting just those
    (Clip-Cov drops their gradient, KL-Cov penalises their movement) keeps exploration alive.""",
    notes="""The code counts the tokens that PPO has clipped in N, from which the number of muted tokens follows, and never picks them: give them -inf here, and NaN to
    padding. KL-Cov in the code penalises the absolute log-ratio, a surrogate of the text's KL; its default share is 2e-3 (0.2 percent), its 32B recipe uses 2e-4.
    The reward law is empirical, and no logged runs are published.""",
)

ENTROPIES = vector("n", of=nonnegative("nats", high=50, typical=(0.02, 2)), doc="mean token entropies of the policy", example=[1.2, 0.8, 0.5, 0.3, 0.2])
LOGITS = vector("V", of=real(typical=(-4, 4)), doc="logits of one softmax state", example=[2.0, 1.0, 0.0, -1.0])


@paper.law(r"R = -a\, e^{H} + b", observes="reward", closed_form=True, assumes=["The run has no entropy bonus and no KL penalty."])
def entropy_reward(
    entropies: ENTROPIES,
    a: real(typical=(0.01, 1), fitted=True, doc="price of reward in entropy", example=0.15),
    b: real(typical=(0, 2), fitted=True, doc="ceiling plus a", example=0.6),
) -> vector("n"):
    """Validation reward of a policy at each entropy; b - a is the ceiling, reached at entropy zero."""
    xp, h, a, b = arrays(entropies, a, b)
    return b - a * xp.exp(h)


@paper.algorithm(
    r"(a, b) = \arg\min \sum_i (R_i + a\, e^{H_i} - b)^2",
    requires={"entropies must hold at least 3 different values": lambda entropies: len(np.unique(entropies)) >= 3},
    gives={"a": 0.15, "b": 0.60, "ceiling": 0.45, "r2": 1.0},
)
def fit_entropy_reward(entropies: ENTROPIES, rewards: vector("n", doc="validation reward at each entropy", example=[0.101982, 0.266169, 0.352692, 0.397521, 0.41679])) -> record(
    a=real(), b=real(), ceiling=real(doc="b - a: reward once the entropy is used up"), r2=real(high=1, nan=True, doc="explained share; NaN where the rewards are all equal")
):
    """Least-squares law through (entropy, reward) pairs of a run, and the ceiling that it foretells."""
    h, r = np.asarray(entropies, float), np.asarray(rewards, float)
    if np.ptp(h) < 0.1:
        caution(f"The entropies span {np.ptp(h):.3g} nats only: the ceiling is an extrapolation far beyond them.")
    x = np.exp(h) - np.exp(h).mean()
    slope = float(x @ (r - r.mean()) / (x @ x))
    b = float(r.mean() - slope * np.exp(h).mean())
    total = float(np.sum((r - r.mean()) ** 2))
    residual = float(np.sum((r - r.mean() - slope * x) ** 2))
    return {"a": -slope, "b": b, "ceiling": b + slope, "r2": 1 - residual / total if np.ptp(r) > 0 else np.nan}


@paper.law(
    r"\frac{dH}{dt} = -\mathrm{Cov}_{a \sim p}(\log p(a),\, d(a)),\quad p = \mathrm{softmax}(z + t d)", closed_form=True, assumes=["First order: a finite step errs by its square."]
)
def entropy_drift(logits: LOGITS, logit_change: vector("V", of=real(typical=(-1, 1)), doc="change of each logit", example=[0.3, 0.0, -0.1, -0.2])) -> real("nats"):
    """Change of the entropy of a softmax state, to first order in the change of its logits."""
    xp, z, d = arrays(logits, logit_change)
    log_p = z - logsumexp(xp, z)[..., None]
    p = xp.exp(log_p)
    # both factors centred: no digits are lost where the means are large
    return -xp.sum(p * (log_p - xp.sum(p * log_p, axis=-1, keepdims=True)) * (d - xp.sum(p * d, axis=-1, keepdims=True)), axis=-1)


@paper.law(r"\Delta H = -\eta\, \mathrm{Cov}_p(\log p,\, p A)\ \text{(policy gradient)},\quad -\eta\, \mathrm{Cov}_p(\log p,\, A)\ \text{(natural)}", closed_form=True)
def entropy_drift_policy_gradient(
    logits: LOGITS,
    advantages: vector("V", doc="advantage of each action; centred under the policy here", example=[1.0, 0.2, -0.5, -1.0]),
    learning_rate: positive(typical=(1e-3, 1), example=0.1),
    *,
    natural: flag(doc="natural policy gradient instead of the plain one") = False,
) -> real("nats"):
    """Change of the entropy by one exact policy-gradient step of a tabular softmax, to first order in the learning rate."""
    xp, z, a, rate = arrays(logits, advantages, learning_rate)
    p = xp.exp(z - logsumexp(xp, z)[..., None])
    centred = a - xp.sum(p * a, axis=-1, keepdims=True)
    return rate * entropy_drift(z, centred if natural else p * centred)


@paper.measure(r"c_i = (A_i - \bar A)(\log \pi_i - \overline{\log \pi})", requires={"mask must keep at least one token": lambda mask: mask is None or np.any(mask)})
def token_covariance(
    log_probabilities: vector("N", of=real("nats", high=0, typical=(-5, 0)), doc="log-probability of each sampled token", example=[-0.1, -2.0, -0.5, -4.0]),
    advantages: vector("N", doc="advantage of each token", example=[1.0, -1.0, 0.5, 1.0]),
    mask: vector("N", of=flag(), doc="true where a token counts") = None,
) -> vector("N", of=real(nan=True, doc="NaN where the mask leaves a token out")):
    """Covariance share of each token of a batch: their mean is what lowers the entropy."""
    log_p, a = np.asarray(log_probabilities, float), np.asarray(advantages, float)
    kept = np.ones(len(a), bool) if mask is None else np.asarray(mask, bool)
    return np.where(kept, (a - a[kept].mean()) * (log_p - log_p[kept].mean()), np.nan)


@paper.algorithm(
    r"\text{clip: } \max(\lfloor rN \rfloor, 1) \text{ tokens at random from } l < c_i < u;\quad \text{kl: the } \max(\lfloor rN \rfloor, 1) \text{ largest } c_i",
    requires={
        "covariances must hold a number: all are NaN": lambda covariances: not np.isnan(covariances).all(),
        "covariances must be below infinity": lambda covariances: not np.isposinf(covariances).any(),
        "low must be below high": lambda low, high: low < high,
    },
)
def select_tokens(
    covariances: vector(
        "N", of=real(nan=True, infinite=True, typical=(-3, 6)), most=40, doc="of the tokens; NaN: padding, -inf: a token already clipped by PPO", example=[0.1, 2.0, -1.0, 8.0, 1.5]
    ),
    *,
    method: choice("clip", "kl", doc="Clip-Cov (drop their gradient) or KL-Cov (penalise their movement)", example="kl"),
    fraction: positive(high=1, typical=(1e-4, 0.5), doc="share of the tokens: 2e-4 for clip, 2e-3 for kl in the code", example=2e-3),
    low: real(doc="clip takes covariances above this", typical=(0, 2)) = 1.0,
    high: real(doc="clip takes covariances below this", typical=(2, 6)) = 5.0,
    seed: seed() = 0,
) -> vector("count", of=integer(low=0), least=0, doc="sorted indices, from 0"):
    """Tokens whose update is to be muted; none where clip finds no covariance in its window."""
    c = np.asarray(covariances, float)
    wanted = max(int(np.sum(~np.isnan(c)) * fraction), 1)
    if method == "kl":
        candidates = np.flatnonzero(np.isfinite(c))
        return np.sort(candidates[np.argsort(-c[candidates], kind="stable")[:wanted]])
    candidates = np.flatnonzero((c > low) & (c < high))
    return np.sort(np.random.default_rng(seed).choice(candidates, min(wanted, len(candidates)), replace=False)) if len(candidates) else candidates


def along(function, point, direction):
    """Derivative of an analytic function along a direction, by a complex step: exact to rounding."""
    return (function(point + 1e-30j * direction)).imag / 1e-30


def entropy(z):
    p = softmax(z)
    return -np.sum(p * np.log(p), axis=-1)


def sign_flipped(logits, logit_change):
    return -entropy_drift(logits, logit_change)


@paper.trial(Identity(rtol=1e-9, atol=1e-12), of=[entropy_drift], controls={"covariance with a plus sign": sign_flipped}, quick=100, full=2000)
def derivative_of_entropy(draw, claim):
    """The covariance is the derivative of the entropy along the logit change, for up to 1000 actions."""
    actions = draw.choice([2, 5, 50, 1000])
    z, d = draw.uniform(0.1, 4) * draw.normal(size=actions), draw.normal(size=actions)
    return along(entropy, z, d), claim(z, d), {"actions": actions}


def kinds_exchanged(logits, advantages, learning_rate, *, natural):
    return entropy_drift_policy_gradient(logits, advantages, learning_rate, natural=not natural)


def advantages_not_centred(logits, advantages, learning_rate, *, natural):
    return learning_rate * entropy_drift(logits, advantages if natural else softmax(logits) * advantages)


@paper.trial(
    Identity(rtol=1e-6, atol=1e-10),
    of=[entropy_drift_policy_gradient],
    controls={"plain and natural exchanged": kinds_exchanged, "advantages not centred": advantages_not_centred},
    quick=50,
    full=1000,
)
def step_of_policy_gradient(draw, claim):
    """The step is rebuilt without its formula (gradient of the expected advantage, times the inverse Fisher matrix if natural), and the entropy followed along it."""
    actions, rate, natural = draw.integer(2, 12), draw.log_uniform(1e-3, 1), draw.choice([False, True])
    z, a = draw.normal(size=actions), draw.normal(0.5, 1, size=actions)
    step = np.array([along(lambda x: softmax(x) @ a, z, unit) for unit in np.eye(actions)])
    if natural:
        p = softmax(z)
        step = np.linalg.pinv(np.diag(p) - np.outer(p, p), rcond=1e-12) @ step
    return along(entropy, z, rate * step), claim(z, a, rate, natural=natural), {"actions": actions, "natural": natural}


def means_over_all(log_probabilities, advantages, mask):
    return np.where(mask, token_covariance(log_probabilities, advantages), np.nan)


@paper.trial(
    Identity(),
    of=[token_covariance, entropy_drift_policy_gradient],
    controls={"means over padding too": means_over_all},
    quick=5,
    full=40,
)
def batches_estimate_the_drift(draw, claim):
    """The mean covariance of tokens sampled from the policy estimates, without bias after the factor N/(N-1), minus the entropy change of a natural step."""
    actions, tokens = draw.integer(3, 10), 30
    z, a = draw.normal(size=actions), draw.normal(0.7, 1, size=actions)
    p = softmax(z)
    mask = np.arange(2 * tokens) < tokens  # the second half is padding, of one kind
    means = []
    for _ in range(1000):
        sampled = np.concatenate([draw.rng.choice(actions, tokens, p=p), np.zeros(tokens, int)])
        means.append(np.nanmean(claim(np.log(p[sampled]), a[sampled], mask)) * tokens / (tokens - 1))
    return Estimate.of(means), -entropy_drift_policy_gradient(z, a, 1.0, natural=True), {"actions": actions}


def rounded_up(covariances, *, fraction, **options):
    return select_tokens(covariances, fraction=min(fraction + 1 / len(covariances), 1), **options)


def smallest_first(covariances, *, method, **options):
    return select_tokens(-covariances if method == "kl" else covariances, method=method, **options)


@paper.trial(Guarantee(), of=[select_tokens], controls={"count rounded up": rounded_up, "smallest covariances": smallest_first}, quick=200, full=5000)
def selection_against_its_definition(draw, claim):
    """KL-Cov takes as many as stated, none left behind being larger; Clip-Cov as many from its window; never padding or clipped tokens."""
    n, fraction = draw.integer(1, 300), draw.log_uniform(1e-3, 0.3)
    c = draw.rng.normal(1, 3, n)
    c[draw.rng.uniform(size=n) < 0.2] = np.nan
    c[draw.rng.uniform(size=n) < 0.1] = -np.inf
    c[0] = 2.0
    number = max(int(fraction * sum(not np.isnan(x) for x in c)), 1)
    finite, window = sorted(x for x in c if np.isfinite(x)), [x for x in c if 1 < x < 5]
    kl = c[claim(c, method="kl", fraction=fraction)]
    clip = c[claim(c, method="clip", fraction=fraction, seed=draw.integer(0, 10**6))]
    good_kl = sorted(kl) == finite[-number:]
    return bool(good_kl and len(clip) == min(number, len(window)) and set(clip) <= set(window))


def largest_in_window(covariances, *, low=1.0, high=5.0, **_):
    return np.array([np.argmax(np.where((covariances > low) & (covariances < high), covariances, -np.inf))])


@paper.trial(Distribution(), of=[select_tokens], controls={"largest in the window": largest_in_window}, quick=2000, full=50_000)
def clip_is_uniform(draw, claim):
    """Clip-Cov picks each token of its window with the same probability."""
    c = np.linspace(0.1, 6.0, 15)
    picked = [int(claim(c, method="clip", fraction=1e-3, seed=int(s))[0]) for s in draw.rng.integers(2**60, size=draw.size)]
    inside = (c > 1) & (c < 5)
    return Counts(np.bincount(picked, minlength=15), inside / inside.sum())


def falling_exponential(entropies, rewards):
    """The law with exp(-H) in the place of exp(H)."""
    return fit_entropy_reward(-entropies, rewards) | {"sign": -1}


@paper.trial(Prediction("reward linear in entropy"), of=[fit_entropy_reward, entropy_reward], controls={"exp(-H) for exp(H)": falling_exponential}, quick=50, full=1000)
def end_of_a_run(draw, claim):
    """On runs that follow the law with noise .005, the fit to their first third predicts the rest better than a line in the entropy."""
    h = draw.uniform(1, 2) * np.exp(-np.linspace(0, draw.uniform(2, 4), 150))
    r = entropy_reward(h, draw.uniform(0.05, 0.2), draw.uniform(0.5, 1.0)) + draw.rng.normal(0, 0.005, len(h))
    early, late = slice(0, 50), slice(50, None)
    fitted = claim(h[early], r[early])
    line = np.polyfit(h[early], r[early], 1)
    return Forecast(r[late], entropy_reward(fitted.get("sign", 1) * h[late], fitted["a"], fitted["b"]), np.polyval(line, h[late]))


def trained(rewards, rate, steps, *, natural=False, muted=None):
    """(mean entropy, mean reward) after each exact gradient step of a tabular softmax; `muted` maps p (log p - mean) A of all entries to those left alone."""
    z, path = np.zeros_like(rewards), []
    for _ in range(steps):
        p = softmax(z)
        advantages = rewards - (p * rewards).sum(1, keepdims=True)
        step = rate * advantages * (1 if natural else p)
        if muted is not None:
            log_p = np.log(p)
            step.ravel()[muted((p * (log_p - (p * log_p).sum(1, keepdims=True)) * advantages).ravel())] = 0
        z = z + step
        path.append((entropy(z).mean(), (softmax(z) * rewards).sum(1).mean()))
    return np.array(path)


def at_random(covariances, *, fraction, **_):
    return np.random.default_rng(covariances[:4].view(np.uint64)).choice(covariances.size, int(fraction * covariances.size), replace=False)


@paper.trial(Guarantee(), of=[select_tokens], controls={"at random": at_random}, quick=2, full=20)
def muting_keeps_entropy(draw, claim):
    """Muting the 2 percent of entries with the largest covariance keeps more than twice the entropy of muting 2 percent at random; the price is in the case."""
    rewards = draw.rng.uniform(size=(200, 20))
    (chosen, reward), (random, reward_random) = (
        trained(rewards, 5.0, 300, muted=mute)[-1] for mute in (lambda c: claim(c, method="kl", fraction=0.02), lambda c: draw.rng.choice(c.size, c.size // 50, replace=False))
    )
    return 2 * random, chosen, {"entropy_random": random, "price": reward_random - reward}


@paper.finding(
    """The ceiling is not a consequence of the mechanism: exact natural-gradient runs of a tabular softmax bend away from the curve through their first third, which
    foretells a ceiling above the best reward that any policy can have. Runs of the plain gradient end within .001 of what theirs foretells.""",
    trial=end_of_a_run,
)
def ceiling_of_an_exact_run():
    rewards = np.random.default_rng(0).uniform(size=(200, 20))
    best, told = float(rewards.max(1).mean()), {"best_reward": float(rewards.max(1).mean())}
    for kind, rate in (("natural", 0.5), ("plain", 5.0)):
        h, r = trained(rewards, rate, 300, natural=kind == "natural").T
        fitted = fit_entropy_reward(h[:100], r[:100])
        error = np.sqrt(np.mean((entropy_reward(h[100:], fitted["a"], fitted["b"]) - r[100:]) ** 2))
        told[kind] = {"r2": fitted["r2"], "foretold": fitted["ceiling"], "reached": float(r[-1]), "held_out_error": float(error)}
    return {"holds": told["natural"]["foretold"] > best + 0.01 and abs(told["plain"]["foretold"] - best) < 0.001, **told}
