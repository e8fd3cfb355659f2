"""The reward hidden in a policy: what supervised fine-tuning and DPO both learn, and why plain fine-tuning has no pull to its start."""

import itertools

import numpy as np

from lawbook.contract import DomainError, Paper, distribution, integer, matrix, nonnegative, positive, real, record, vector
from lawbook.numerics import arrays, bracketed_root, logsumexp
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections",
    arxiv="2507.00018",
    tags=["supervised fine-tuning", "dpo", "implicit reward", "kl penalty", "imitation", "chi-square", "q-values", "preference"],
    source="derived",
    says="""Fine-tuning on demonstrations and DPO both learn a reward that sits in the ratio of a policy to its reference. Read as a game against an imitator with a KL
    penalty, the penalty cancels in plain fine-tuning: what is left is the likelihood, and nothing keeps the model near its start. A convex price on the reward brings
    the pull back. Logits act as action values, and the reward of a sequence is the sum of what its tokens gain over the reference.""",
    notes="""The framework is the abstract's; the algebra is derived and checked here. The price on the reward is r^2/(4 strength), of Pearson chi-square type, averaged under
    the expert; its optimum is had from one root, by way of the Wright omega function. That its distance from the reference grows with the strength is proved: the
    derivative is a multiple of a variance.""",
)

BETA = positive(typical=(0.05, 2), doc="coefficient of the KL penalty", example=0.1)
LOG_PROBABILITY = real("nats", high=1e-3, typical=(-8, 0), infinite=True)  # logs round above 0
EXPERT = distribution("n", doc="probabilities of the demonstrations' answers", example=[0.6, 0.3, 0.1, 0.0])
REFERENCE = distribution("n", doc="probabilities of the same answers under the reference", example=[0.1, 0.2, 0.3, 0.4])
SUPPORT = {"reference must be above 0 wherever expert is": lambda reference, expert: np.all((reference > 0) | (expert == 0))}


def log_of(xp, p):
    """log p, -inf at zero, with finite gradients."""
    return xp.where(p > 0, xp.log(xp.where(p > 0, p, xp.ones_like(p))), -xp.inf * xp.ones_like(p))


def with_support(rng):
    expert, reference = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    return {"expert": expert, "reference": reference, "beta": float(rng.uniform(0.05, 2))}


@paper.law(
    r"r_\pi(y) = \beta \log \frac{\pi(y)}{\pi_0(y)}",
    requires={
        "reference_logprobs must be finite: where the reference never goes, no reward is defined": lambda reference_logprobs: np.isfinite(reference_logprobs).all(),
        "policy_logprobs must be below infinity": lambda policy_logprobs: not np.isposinf(policy_logprobs).any(),
    },
    assumes=["Known up to a constant for each prompt: only differences between answers to one prompt mean something."],
    closed_form=True,
)
def implicit_reward(
    policy_logprobs: vector("n", of=LOG_PROBABILITY, doc="log-probability of each answer (or token) under the tuned model", example=[-12.0, -20.0, -15.0]),
    reference_logprobs: vector("n", of=LOG_PROBABILITY, doc="the same under the model that it started from", example=[-14.0, -18.0, -15.5]),
    beta: BETA,
) -> vector("n", of=real(infinite=True, doc="-inf where the policy never goes")):
    """The reward for which the policy is optimal under the KL penalty; the difference of two answers is the margin whose sigmoid is DPO's preference."""
    _, policy, reference, beta = arrays(policy_logprobs, reference_logprobs, beta)
    return beta * (policy - reference)


@paper.law(r"\pi_r(y) = \pi_0(y)\, e^{r(y)/\beta} / Z", closed_form=True)
def policy_from_reward(
    reference: REFERENCE, rewards: vector("n", doc="reward of each answer", example=[0.2, 0.1, 0.0, -0.1]), beta: positive(typical=(0.05, 2), example=0.1)
) -> distribution("n"):
    """The optimal policy of a reward under the KL penalty."""
    xp, p, r, beta = arrays(reference, rewards, beta)
    tilted = log_of(xp, p) + r / beta
    return xp.exp(tilted - logsumexp(xp, tilted)[..., None])


@paper.law(
    r"\mathbb{E}_E\, r - \max_\pi \left(\mathbb{E}_\pi r - \beta\, \mathrm{KL}(\pi \| \pi_0)\right) = \beta\, \mathbb{E}_E[\log \pi_r - \log \pi_0]",
    requires=SUPPORT,
    sample=lambda rng: with_support(rng) | {"rewards": rng.normal(size=5)},
)
def sft_as_reward_learning(expert: EXPERT, reference: REFERENCE, rewards: vector("n", doc="reward of each answer", example=[0.2, 0.1, 0.0, -0.1]), beta: BETA) -> record(
    game_value=real(doc="expert's reward less the imitator's best penalised one"), likelihood_form=real(doc="beta times the log-likelihood gained over the reference")
):
    """The imitation game's value of a reward is the fine-tuning likelihood of its policy, up to a constant: the KL penalty has cancelled."""
    e, p, r = (np.asarray(v, float) for v in (expert, reference, rewards))
    policy, seen = policy_from_reward(p / p.sum(), r, beta), e > 0
    reached = policy > 0
    prior = np.log(p / p.sum(), where=p > 0, out=np.zeros(len(p)))
    imitator = policy @ r - beta * np.sum(policy[reached] * (np.log(policy[reached]) - prior[reached]))
    tilted = np.where(p > 0, prior + r / beta, -np.inf)
    log_policy = tilted - logsumexp(np, tilted)  # also where the policy itself rounds to zero
    e = e / e.sum()
    return {"game_value": float(e @ r - imitator), "likelihood_form": float(beta * np.sum(e[seen] * (log_policy[seen] - prior[seen])))}


@paper.law(
    r"\max_r\ \mathbb{E}_E\left[r - \frac{r^2}{4a}\right] - \beta \log \mathbb{E}_{\pi_0} e^{r/\beta}:\quad e(y)\left(1 - \frac{r(y)}{2a}\right) = \pi_r(y)",
    requires=SUPPORT,
    sample=lambda rng: with_support(rng) | {"strength": float(np.exp(rng.uniform(-4, 4)))},
)
def chi_square_sft(
    expert: EXPERT, reference: REFERENCE, beta: BETA, strength: positive(typical=(0.01, 100), doc="a: the larger, the nearer to plain fine-tuning", example=0.2)
) -> record(
    policy=distribution("n"),
    reward=vector("n", of=real(infinite=True, doc="-inf where the expert never goes")),
    kl_to_reference=nonnegative("nats"),
):
    """Fine-tuning with a chi-square price on the implicit reward: its policy lies between the expert and the reference on the expert's answers.

    The reward is the one of mean zero under the expert, as the price demands."""
    from scipy.special import wrightomega

    e, p = np.asarray(expert, float), np.asarray(reference, float)
    seen = e > 0
    e, log_ratio, k = e[seen] / e.sum(), np.log(p[seen] / p.sum()) - np.log(e[seen] / e.sum()), min(2 * strength / beta, 1e12)

    def share(log_z):
        """policy / expert, which solves u exp(k u) = (reference / expert) exp(k - log Z)."""
        return wrightomega(k + np.log(k) + log_ratio - log_z) / k

    # beyond k = 1e12 the policy is the expert in all digits that are left; all shares are above 1 at one end of the bracket, below 1 at the other
    u = share(bracketed_root(lambda log_z: float(e @ share(log_z)) - 1, float(log_ratio.min()) - 1, float(log_ratio.max()) + 1))
    policy = e * u / (e @ u)
    reward = beta * (np.log(u) - log_ratio) if strength > beta else 2 * strength * (1 - u)  # each where the other cancels
    if not np.isfinite(reward).all():
        raise DomainError(f"strength must leave a policy above the smallest number on every answer of expert; it was {strength} against a beta of {beta}.")
    full = np.zeros(len(seen)), np.full(len(seen), -np.inf)
    full[0][seen], full[1][seen] = policy, reward - e @ reward
    return {"policy": full[0], "reward": full[1], "kl_to_reference": max(float(policy @ (np.log(u) - log_ratio)), 0.0)}


@paper.measure(
    r"Q(s,a) = \beta z_a,\quad V(s) = \beta \log \sum_a e^{z_a},\quad Q - V = \beta \log \pi(a \mid s)",
    requires={
        "actions must be below the number of columns of logits": lambda actions, logits: np.all(np.asarray(actions) < np.shape(logits)[1]),
        "logits must be below infinity, and each row must hold a finite one": lambda logits: np.isfinite(np.max(logits, axis=1)).all(),
    },
    sample=lambda rng: {"logits": rng.normal(size=(4, 5)), "actions": rng.integers(0, 5, 4), "beta": float(rng.uniform(0.05, 2))},
)
def token_values(
    logits: matrix("T", "V", of=real(infinite=True, doc="-inf: a token that is masked"), example=[[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]]),
    actions: vector("T", of=integer(low=0), doc="index of the token taken at each position, from 0", example=[0, 2]),
    beta: positive(typical=(0.05, 2)) = 1.0,
) -> record(q=vector("T", of=real(infinite=True)), v=vector("T"), advantage=vector("T", of=real(infinite=True, doc="-inf where the token was masked"))):
    """Action value, state value and advantage of each token taken, up to a constant for each state in the first two."""
    z, a = np.asarray(logits, float), np.asarray(actions)
    q = z[np.arange(len(a)), a]
    total = logsumexp(np, z)
    return {"q": beta * q, "v": beta * total, "advantage": beta * (q - total)}


def not_tempered(reference, rewards, beta):
    return policy_from_reward(reference, rewards, 1.0)


@paper.trial(Identity(rtol=1e-10, atol=1e-12), of=[policy_from_reward, implicit_reward], controls={"reward not divided by beta": not_tempered}, quick=200, full=5000)
def round_trip(draw, claim):
    """A policy comes back from its implicit reward whatever constant is added, and a centred reward from its policy."""
    policy, reference, beta = draw.dirichlet(2.0, 6), draw.dirichlet(2.0, 6), draw.log_uniform(0.05, 2)
    reward = implicit_reward(np.log(policy), np.log(reference), beta)
    rewards = beta * draw.normal(size=6)
    back = implicit_reward(np.log(claim(reference, rewards, beta)), np.log(reference), beta)
    return [*claim(reference, reward + draw.normal(), beta), *(back - back.mean())], [*policy, *(rewards - rewards.mean())], {"beta": beta}


def reference_added(expert, reference, rewards, beta):
    found = sft_as_reward_learning(expert, reference, rewards, beta)
    return found | {"likelihood_form": found["likelihood_form"] + 2 * beta * float(expert @ np.log(reference))}


@paper.trial(Identity(rtol=1e-10, atol=1e-10), of=[sft_as_reward_learning], controls={"plus log reference": reference_added}, quick=200, full=1000)
def game_is_likelihood(draw, claim):
    """Both sides equal the expert's reward less the normaliser; no policy drawn at random does better against the reward than the imitator."""
    e, p, r, beta = draw.dirichlet(1.0, 5), draw.dirichlet(1.0, 5), draw.normal(size=5), draw.log_uniform(0.05, 2)
    found = claim(e, p, r, beta)
    others = draw.rng.dirichlet(np.ones(5), 200)
    best = np.max(others @ r - beta * np.sum(others * np.log(others / p), axis=1))
    value = e @ r - r.max() - beta * np.log(p @ np.exp((r - r.max()) / beta))
    return [found["game_value"], found["likelihood_form"], max(value, e @ r - best)], [value, value, e @ r - best], {"beta": beta}


def twice_the_price(expert, reference, beta, strength):
    return chi_square_sft(expert, reference, beta, strength / 2)


@paper.trial(Identity(rtol=0, atol=1e-10), of=[chi_square_sft], controls={"price r^2 / (2 a)": twice_the_price}, quick=100, full=2000)
def optimum_of_the_priced_game(draw, claim):
    """The gradient of the strictly concave objective, by complex steps, vanishes at the reward, whose policy is the stated one; a huge strength gives the expert."""
    n, beta, a = draw.integer(2, 8), draw.log_uniform(0.1, 2), draw.log_uniform(0.05, 20)
    e, p = draw.dirichlet(1.0, n + 1), draw.dirichlet(1.0, n + 1)
    e[-1] = 0
    e /= e.sum()
    found = claim(e, p, beta, a)
    r, seen = found["reward"][:-1], p[:-1]

    def objective(r):
        return e[:-1] @ (r - r**2 / (4 * a)) - beta * np.log(seen @ np.exp(r / beta))

    gradient = [objective(r + 1e-30j * unit).imag / 1e-30 for unit in np.eye(n)]
    policy = policy_from_reward(seen / seen.sum(), r, beta)
    limit = claim(e, p, beta, 1e13 * beta)["policy"]
    return [*gradient, *found["policy"][:-1], e[:-1] @ r, *limit], [*np.zeros(n), *policy, 0, *e], {"beta": beta, "strength": a}


def strength_inverted(expert, reference, beta, strength):
    return chi_square_sft(expert, reference, beta, 1 / strength)


@paper.trial(Inequality(atol=1e-12), of=[chi_square_sft], controls={"strength inverted": strength_inverted}, quick=200, full=10_000)
def pull_to_the_reference(draw, claim):
    """The distance from the reference grows with the strength, and never exceeds that of the expert."""
    n, beta, a = draw.integer(2, 6), draw.log_uniform(0.05, 2), draw.log_uniform(0.01, 100)
    e, p = draw.dirichlet(draw.log_uniform(0.3, 3), n), draw.dirichlet(draw.log_uniform(0.3, 3), n)
    e, p = (np.maximum(v, 1e-9) / np.maximum(v, 1e-9).sum() for v in (e, p))
    near, far = (claim(e, p, beta, strength)["kl_to_reference"] for strength in (a, a * draw.log_uniform(1.01, 10)))
    return [near, far], [far, float(e @ np.log(e / p))], {"beta": beta, "strength": a, "expert": e, "reference": p}


def hard_maximum(logits, actions, beta):
    found = token_values(logits, actions, beta)
    return found | {"advantage": found["q"] - beta * np.max(logits, axis=1)}


@paper.trial(Identity(rtol=1e-10, atol=1e-10), of=[token_values, implicit_reward], controls={"value by the largest logit": hard_maximum}, quick=50, full=1000)
def tokens_add_up(draw, claim):
    """Over all sequences of 3 tokens of a random model, the advantages gained over the reference add up to the implicit reward of the sequence."""
    beta, length, size = draw.log_uniform(0.05, 2), 3, 3
    states = [prefix for t in range(length) for prefix in itertools.product(range(size), repeat=t)]
    models = [{state: 2 * draw.rng.normal(size=size) for state in states} for _ in range(2)]
    gained, logs = [], []
    for y in itertools.product(range(size), repeat=length):
        rows = [np.array([model[y[:t]] for t in range(length)]) for model in models]
        tuned, start = (claim(z, np.array(y), beta) for z in rows)
        gained.append(np.sum(tuned["advantage"] - start["advantage"]))
        logs.append([np.log(np.prod([np.exp(z[t, y[t]]) / np.exp(z[t]).sum() for t in range(length)])) for z in rows])
    return gained, implicit_reward(*np.array(logs).T, beta), {"beta": beta}
