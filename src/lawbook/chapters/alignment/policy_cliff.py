"""How far a reward may move before the best policy jumps, what a temperature makes of that cliff, and what it costs."""

from itertools import product

import numpy as np

from lawbook.contract import Paper, caution, count, distribution, matrix, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays, logsumexp, softmax
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="The Policy Cliff: A Theoretical Analysis of Reward-Policy Maps in Large Language Models",
    arxiv="2507.20150",
    tags=["reward", "policy", "stability", "reward hacking", "reinforcement learning", "markov decision process", "entropy regularisation", "alignment"],
    source="derived",
    says="""The best policy jumps wherever two actions tie: there an arbitrarily small change of the reward flips the behaviour. Where the best actions lead by a margin, nothing
    happens until the change exceeds a radius that follows from the margin. Entropy regularisation replaces the cliff by a slope, no steeper than one over the temperature, and
    its price in reward is at most proportional to the temperature.""",
    notes="""The abstract is qualitative; constants are derived here, by Bellman operators that are Lipschitz in the reward. The radius is met for every discount by an MDP whose
    actions lead into separate rewards for ever, not only by bandits. The bound tanh(c/2) on the change of a softmax is met where a mass 1/(1+e^c) gains c and the
    rest loses c; equal halves come to tanh(c)/2 only. Actions count as tied within a tolerance of 1e-9 (and rounding) in their value.""",
)

REWARDS = matrix("S", "A", of=real(typical=(-1, 1)), doc="reward of each action in each state", example=[[1.0, 0.9], [0.0, 0.5]])
TRANSITIONS = distribution("S", "A", "S", doc="[s, a, s']: probability of state s' after action a in state s", example=[[[1, 0], [0.5, 0.5]], [[1, 0], [0, 1]]])
DISCOUNT = nonnegative(high=1, below=True, typical=(0, 0.95), doc="g: weight of the next step's value; 0 is a bandit", example=0.5)
TEMPERATURE = positive(typical=(0.01, 2), doc="tau: weight of the entropy", example=0.2)
SIZES = vector("k", of=real(typical=(-0.5, 0.5)), doc="how far to go along the direction", example=[0.0, 0.02, 0.05, 0.1, 0.2])
TIE = 1e-9


def tied(q):
    """Where each action is among the best of its state."""
    return q >= q.max(-1, keepdims=True) - TIE - 1e-13 * np.abs(q).max()


@paper.model(
    r"V = \tau \log \sum_a e^{Q(\cdot, a)/\tau}\ (\max_a Q \text{ at } \tau = 0),\quad Q = R + g P V,\quad \pi = \mathrm{softmax}(Q/\tau)\ (\text{even over } \arg\max_a Q)",
)
def optimal_policy(
    rewards: REWARDS, transitions: TRANSITIONS, discount: DISCOUNT, *, temperature: nonnegative(typical=(0, 2), doc="tau: weight of the entropy; 0 for the plain optimum") = 0.0
) -> record(policy=distribution("S", "A"), values=vector("S", doc="with the entropy bonus where the temperature is not 0"), q=matrix("S", "A")):
    """The policy that maximises discounted reward, plus its entropy at a temperature, with its values; ties are shared evenly."""
    r, p = np.asarray(rewards, float), np.asarray(transitions, float)
    value, last = np.zeros(len(r)), np.inf
    for _ in range(1000):
        q = r + discount * (p @ value)
        if temperature > 0:
            better = temperature * logsumexp(np, q / temperature)
            policy = np.exp((q - better[:, None]) / temperature)
            policy /= policy.sum(1, keepdims=True)
        else:
            better = q.max(1)
            policy = (np.arange(r.shape[1]) == q.argmax(1)[:, None]).astype(float)
        gap = np.abs(better - value).max()
        if gap <= 1e-14 * np.abs(q).max() or (gap >= last and gap <= 1e-9 * np.abs(q).max()):
            break
        # a Newton step on the Bellman equation: the value of the greedy (or softmax) policy
        value, last = value + np.linalg.solve(np.eye(len(r)) - discount * np.einsum("sa,sat->st", policy, p), better - value), gap
    else:
        caution("The Bellman equation was not solved to rounding in 1000 steps of policy iteration.")
    if temperature == 0:
        best = tied(q)
        policy = best / best.sum(1, keepdims=True)
    return {"policy": policy, "values": better, "q": q}


@paper.measure(
    r"G = \min_s \big[\max_a Q^* - \max_{a \notin \arg\max} Q^*\big],\quad \sup|R' - R| < \frac{(1-g)\, G}{2} \Rightarrow \arg\max Q^*_{R'} \subseteq \arg\max Q^*_R",
)
def stability_radius(rewards: REWARDS, transitions: TRANSITIONS, discount: DISCOUNT) -> record(
    gap=positive(infinite=True, doc="smallest lead of the best actions over the others; infinite where all actions tie in every state"),
    radius=positive(infinite=True, doc="any smaller change of rewards makes no new action best"),
    policy_radius=nonnegative(infinite=True, doc="any smaller change leaves the policy as it is: 0 where a state has tied best actions"),
    tied_states=vector("S", of=count("", low=0, high=1), doc="1 where several actions are best"),
):
    """How far every reward may move before another action becomes best somewhere."""
    q = optimal_policy(rewards, transitions, discount)["q"]
    best = tied(q)
    gap = float((q.max(1) - np.where(best, -np.inf, q).max(1)).min())
    ties = best.sum(1) > 1
    radius = gap * (1 - discount) / 2
    return {"gap": gap, "radius": radius, "policy_radius": 0.0 if ties.any() else radius, "tied_states": ties.astype(int)}


@paper.bound(r"\max_s \mathrm{TV}(\pi_\tau, \pi'_\tau) \le \tanh\frac{\delta}{2 \tau (1-g)},\quad \delta = \sup|R' - R|", closed_form=True)
def soft_policy_shift(
    reward_change: positive(typical=(1e-3, 2), doc="delta: largest change of any reward", example=0.05), temperature: TEMPERATURE, discount: DISCOUNT = 0.0
) -> probability(doc="total variation distance"):
    """Largest change, in any state, of the policy that is optimal at a temperature."""
    xp, change, temperature, discount = arrays(reward_change, temperature, discount)
    return xp.tanh(change / (2 * temperature * (1 - discount)))


@paper.bound(r"0 \le V^* - V^{\pi_\tau} \le \frac{\tau \log A}{1-g}", closed_form=True)
def entropy_price(temperature: TEMPERATURE, actions: count("actions", typical=(2, 100_000), example=4), discount: DISCOUNT = 0.0) -> nonnegative():
    """Largest loss of discounted reward by following the policy that is optimal at a temperature."""
    xp, temperature, actions, discount = arrays(temperature, actions, discount)
    return temperature * xp.log(actions) / (1 - discount)


@paper.measure(r"\max_s \mathrm{TV}\big(\pi_\tau(R),\, \pi_\tau(R + x_i D)\big)")
def cliff_scan(
    rewards: REWARDS,
    transitions: TRANSITIONS,
    discount: DISCOUNT,
    direction: matrix("S", "A", of=real(typical=(-1, 1)), doc="D: change of each reward per unit of size", example=[[0, 1], [0, 0]]),
    sizes: SIZES,
    *,
    temperature: nonnegative(typical=(0, 2), doc="tau: weight of the entropy; 0 for the plain optimum") = 0.0,
) -> vector("k", of=probability()):
    """How much the policy changes, in the state where it changes most, along one direction of rewards."""
    r, d = np.asarray(rewards, float), np.asarray(direction, float)
    start, *moved = (optimal_policy(r + size * d, transitions, discount, temperature=temperature)["policy"] for size in (0.0, *np.asarray(sizes, float)))
    return np.array([min(np.abs(policy - start).sum(1).max() / 2, 1.0) for policy in moved])


def fourth(reward_change, temperature, discount=0.0):
    return np.tanh(reward_change / (4 * temperature * (1 - discount)))


@paper.trial(Inequality(atol=1e-14, reaches=0.9999), of=[soft_policy_shift], controls={"tanh(c/4)": fourth}, quick=500, full=20_000)
def softmax_is_lipschitz(draw, claim):
    """Logits that move by at most c move a softmax by at most tanh(c/2) in total variation, which is met."""
    actions, c, temperature = draw.integer(2, 6), draw.log_uniform(0.01, 5), draw.log_uniform(0.1, 10)
    z, shift = 3 * draw.normal(size=actions), draw.uniform(-c, c, size=actions)
    shift = draw.choice([shift, c * np.sign(shift)])
    return np.abs(softmax(z + shift) - softmax(z)).sum() / 2, claim(c * temperature, temperature), {"c": c}


def random_mdp(draw, states=4, actions=3):
    transitions = np.array([draw.dirichlet(0.5, states) for _ in range(states * actions)]).reshape(states, actions, states)
    return draw.normal(size=(states, actions)), transitions, draw.uniform(0, 0.9)


def policy_value(r, p, g, policy):
    return np.linalg.solve(np.eye(len(r)) - g * np.einsum("sa,sat->st", policy, p), (policy * r).sum(1))


def half_price(temperature, actions, discount):
    return entropy_price(temperature, actions, discount) / 2


def undiscounted(reward_change, temperature, discount):
    return soft_policy_shift(reward_change, temperature)


@paper.trial(
    Inequality(atol=1e-11, search=60),
    of=[entropy_price, soft_policy_shift, optimal_policy, cliff_scan],
    claim=(entropy_price, soft_policy_shift),
    controls={"half the price": (half_price, soft_policy_shift), "without the discount": (entropy_price, undiscounted)},
    quick=100,
    full=3000,
)
def slopes_and_price(draw, claim):
    """In random MDPs and nearly indifferent ones: values, plain or soft, move by at most delta/(1-g), soft policies by the bound, and entropy costs at most its price."""
    r, p, g = random_mdp(draw)
    r = r * draw.choice([1.0, 1e-3])
    temperature, delta = draw.log_uniform(0.05, 2), draw.log_uniform(0.01, 1)
    direction = np.sign(draw.uniform(-1, 1, size=r.shape))
    moves = [np.abs(optimal_policy(r + delta * direction, p, g, temperature=t)["q"] - optimal_policy(r, p, g, temperature=t)["q"]).max() for t in (0.0, temperature)]
    changed = cliff_scan(r, p, g, direction, [delta], temperature=temperature)[0]
    soft = optimal_policy(r, p, g, temperature=temperature)["policy"]
    # a bandit of one good action among many poor ones comes close to the price
    bandit = np.append(1.0, np.full(99, 1 - draw.uniform(0, 10) * temperature))
    lost = [(optimal_policy(r, p, g)["values"] - policy_value(r, p, g, soft)).max(), 1 - softmax(bandit / temperature) @ bandit]
    price, shift = claim
    return [*moves, changed, *lost], [*[delta / (1 - g)] * 2, shift(delta, temperature, g), price(temperature, 3, g), price(temperature, 100, 0.0)], {"discount": g}


def average_for_sum(rewards, transitions, discount, *, temperature):
    """Soft values with the mean over actions in the place of the sum."""
    shift = temperature * np.log(rewards.shape[1])
    found = optimal_policy(rewards - shift, transitions, discount, temperature=temperature)
    return found if temperature else optimal_policy(rewards, transitions, discount)


@paper.trial(Identity(rtol=1e-9, atol=1e-9), of=[optimal_policy], controls={"mean over actions for their sum": average_for_sum}, quick=15, full=300)
def all_policies(draw, claim):
    """Plain values are the best of all deterministic policies, listed; soft ones are the limit of plain value iteration."""
    r, p, g = random_mdp(draw)
    listed = np.max([policy_value(r, p, g, np.eye(3)[list(choice)]) for choice in product(range(3), repeat=4)], axis=0)
    temperature, value = draw.log_uniform(0.02, 2), np.zeros(4)
    for _ in range(400):
        q = r + g * (p @ value)
        value = temperature * np.log(np.exp((q - q.max()) / temperature).sum(1)) + q.max()
    plain, soft = (claim(r, p, g, temperature=t) for t in (0.0, temperature))
    return np.concatenate([listed, value, softmax(q / temperature).ravel()]), np.concatenate([plain["values"], soft["values"], soft["policy"].ravel()]), {"discount": g}


def steepest(r, p, g, state, rival):
    """Signs of rewards that raise a rival's value over the best action's as fast as possible."""
    q = optimal_policy(r, p, g)["q"]
    best, greedy = q[state].argmax(), np.eye(r.shape[1])[q.argmax(1)]
    visits = np.linalg.solve((np.eye(len(r)) - g * np.einsum("sa,sat->st", greedy, p)).T, g * (p[state, rival] - p[state, best]))
    slope = np.repeat(visits[:, None], r.shape[1], 1)  # all actions of a state, as others may tie with the best
    slope[state, rival] += 1
    slope[state, tied(q)[state]] -= 1
    return np.sign(slope)


def fork(g):
    """Two actions that lead into two states for ever: rewards differ by 0.2 there."""
    p = np.zeros((3, 2, 3))
    p[0, 0, 1] = p[0, 1, 2] = p[1, :, 1] = p[2, :, 2] = 1
    return np.array([[1.2, 1.0], [1.2, 1.2], [1.0, 1.0]]), p, g


def undiscounted_radius(rewards, transitions, discount):
    found = stability_radius(rewards, transitions, discount)
    return {**found, "radius": found["gap"] / 2, "policy_radius": np.where(found["tied_states"].any(), 0.0, found["gap"] / 2)}


def radius_in_spite_of_ties(rewards, transitions, discount):
    found = stability_radius(rewards, transitions, discount)
    return {**found, "policy_radius": found["radius"]}


@paper.trial(
    Guarantee(),
    of=[stability_radius, cliff_scan],
    controls={"gap/2 without the discount": undiscounted_radius, "radius in spite of ties": radius_in_spite_of_ties},
    quick=30,
    full=500,
)
def nothing_within_the_radius(draw, claim):
    """Within .99 of the radius no rewards, steepest or random, make a new action best, nor change the policy where none are tied; at 1.01 of it bandits and forks change."""
    r, p, g = random_mdp(draw)
    if draw.choice([True, False]):  # an exact tie: a copy of the best action
        best = optimal_policy(r, p, g)["q"][0].argmax()
        r[0, best - 1], p[0, best - 1] = r[0, best], p[0, best]
    before, found = tied(optimal_policy(r, p, g)["q"]), claim(r, p, g)
    rivals = [(s, a) for s in range(4) for a in range(3) if not before[s, a]]
    directions = [steepest(r, p, g, s, a) for s, a in rivals] + [np.sign(draw.normal(size=r.shape)) for _ in range(5)]
    kept = all((tied(optimal_policy(r + 0.99 * found["radius"] * d, p, g)["q"]) <= before).all() for d in directions)
    same = all(cliff_scan(r, p, g, d, [0.99 * found["policy_radius"], 1e-6 * found["policy_radius"]]).max() == 0 for d in directions)
    exact = []
    for one in ((r[:1], np.ones((1, 3, 1)), 0.0), fork(g)):
        q = optimal_policy(*one)["q"][0]
        rival = int(np.argmax(np.where(tied(q), -np.inf, q)))
        radius = claim(*one)["radius"]
        moved = [bool(tied(optimal_policy(one[0] + f * radius * steepest(*one, 0, rival), *one[1:])["q"])[0, rival]) for f in (0.99, 1.01)]
        exact.append(moved == [False, True])
    return bool(kept and same and all(exact))


@paper.finding(
    """A cliff needs no large reward: where two answers tie, a reward of 1e-6 on one of them moves half of the policy's mass, and all of it under a fixed order of ties; at a
    temperature of .1 the same change moves 2.5e-6, which costs at most .07 of reward.""",
    trial=nothing_within_the_radius,
)
def a_millionth_flips_the_policy():
    bandit = ([[1.0, 1.0]], np.ones((1, 2, 1)), 0.0, [[0.0, 1.0]], [1e-6])
    hard, soft = float(cliff_scan(*bandit)[0]), float(cliff_scan(*bandit, temperature=0.1)[0])
    found = stability_radius(*bandit[:3])
    holds = hard == 0.5 and abs(soft - 2.5e-6) < 1e-9 and found["policy_radius"] == 0
    return {"holds": bool(holds), "plain": hard, "soft": soft, "bound": float(soft_policy_shift(1e-6, 0.1)), "price": float(entropy_price(0.1, 2)), "radius": found["radius"]}
