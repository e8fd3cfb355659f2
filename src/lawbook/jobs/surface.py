"""The Chinchilla law with everything that bounds a plan: demand to serve, largest model, data at hand and how often they may be repeated; and its optima."""

from dataclasses import dataclass

import numpy as np

from ..chapters.scaling.beyond_chinchilla import chinchilla_loss, compute_optimal, inference_optimal
from ..chapters.scaling.one_epoch import epochs_value
from ..chapters.scaling.sld_bench import REPEATED
from ..contract import DomainError
from ..numerics import bracketed_root

TOKENS_FADE, PARAMS_FADE = REPEATED[5:]  # R_D* and R_N*: repetitions, and surplus parameters, after which the worth has fallen by the factor e


@dataclass(frozen=True)
class Surface:
    """Loss and cost over params n and tokens d: the plain law, or where it `saturates` that of repeated data, which is the same up to the balanced model of the data at hand."""

    constants: dict[str, float]
    served: float = 0.0  # tokens over the model's life
    most_params: float = np.inf
    unique: float = np.inf  # tokens at hand
    epochs: float = 1.0  # at most
    saturates: bool = False

    @property
    def most_tokens(self):
        return self.unique * self.epochs

    def worth(self, n, d):
        """Effective params and tokens."""
        if not self.saturates:
            return n, d
        unique = np.minimum(self.unique, d)
        base = np.minimum(n, self.balanced(unique))
        size = epochs_value(base, n / base, r_star=PARAMS_FADE)["effective_tokens"]  # surplus parameters fade as repeated tokens do
        return size, epochs_value(unique, d / unique, r_star=TOKENS_FADE)["effective_tokens"]

    def loss(self, n, d):
        n, d = np.asarray(n, float), np.asarray(d, float)
        return np.where(d > 0, chinchilla_loss(*self.worth(n, np.where(d > 0, d, 1.0)), constants=self.constants), np.inf)

    def cost(self, n, d):
        """FLOP of training and serving."""
        return n * (6 * d + 2 * self.served)

    def balanced(self, d):
        """The compute-optimal params for d tokens."""
        law = self.constants
        return (law["alpha"] * law["A"] / (law["beta"] * law["B"]) * d ** law["beta"]) ** (1 / law["alpha"])

    def affordable(self, n, flops):
        """Tokens that a budget leaves to models of n params, inside the bounds."""
        return np.clip((flops / n - 2 * self.served) / 6, 0, self.most_tokens)

    def tokens_for(self, n, target):
        """Tokens with which models of n params reach a loss; infinite where none at hand do."""
        law = self.constants
        n = np.asarray(n, float)
        gap = target - law["E"] - law["A"] * n ** -law["alpha"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            d = np.where(gap > 0, (law["B"] / np.where(gap > 0, gap, 1)) ** (1 / law["beta"]), np.inf)  # fresh ones, fully worth their number
        if self.saturates:
            low, high = np.log(np.minimum(d, self.most_tokens)), np.full(n.shape, np.log(self.most_tokens))
            out = self.loss(n, self.most_tokens) > target * (1 + 1e-14)
            for _ in range(60):  # bisection: the loss falls with the tokens
                middle = (low + high) / 2
                enough = self.loss(n, np.exp(middle)) <= target
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
            d = np.where(out, np.inf, np.exp(high))
        return np.where(d <= self.most_tokens * (1 + 1e-12), d, np.inf)

    def at_budget(self, flops):
        """(params, tokens) of the lowest loss for a total budget."""
        n, d = self._free(flops)
        if n > self.most_params:
            n, d = self.most_params, (flops / self.most_params - 2 * self.served) / 6
        if d > self.unique:  # the loss of unrepeated tokens falls up to here, so the best model has seen them all
            low, high = (flops / (6 * tokens + 2 * self.served) for tokens in (self.most_tokens, self.unique))
            if low >= self.most_params:
                return self.most_params, self.most_tokens
            n = np.exp(_lowest(lambda u: self.loss(np.exp(u), self.affordable(np.exp(u), flops)), np.log(low), np.log(min(high, self.most_params))))
            d = self.affordable(n, flops)
        return float(n), float(d)

    def _free(self, flops):
        """The optimum without bounds."""
        law, floor = self.constants, self.constants["E"]
        if not self.served:
            best = compute_optimal(flops, constants=law)
        else:

            def spent(log_gap):
                return np.log(inference_optimal(floor + np.exp(log_gap), self.served, constants=law)["total_flops"] / flops)

            cheap = np.log(compute_optimal(flops, constants=law)["loss"] - floor)  # serving costs more: the loss is higher than this
            best = inference_optimal(floor + np.exp(bracketed_root(spent, cheap, cheap + 12, what="the budget")), self.served, constants=law)
        return best["params"], best["tokens"]

    def at_loss(self, target):
        """(params, tokens) that reach a loss at the least cost."""
        floor = self.constants["E"]
        if target <= floor:
            raise DomainError(f"target_loss must be above the floor of the law, {floor:.5g} nats; it was {target:.5g}.")
        best = inference_optimal(target, self.served, constants=self.constants)
        n, d = best["params"], best["tokens"]
        if n <= self.most_params and d <= self.unique:
            return n, d
        low = np.log(self.constants["A"] / (target - floor)) / self.constants["alpha"]
        high = min(np.log(self.most_params), np.log(n) + 14)

        def cost(u):
            return self.cost(np.exp(u), self.tokens_for(np.exp(u), target))

        if low >= high or not np.isfinite(cost(u := _lowest(cost, low, high))):
            raise DomainError(f"target_loss {target:.5g} cannot be reached within max_params and max_tokens.")
        return float(np.exp(u)), float(self.tokens_for(np.exp(u), target))

    def largest(self):
        """(params, tokens) of the largest model within the bounds that no other beats at its cost."""

        def imbalance(log_n, log_d):
            """By how much a share more of tokens lowers the loss less, for its cost, than a share more of params; falls with params, rises with tokens."""
            n, d = np.exp(log_n), np.exp(log_d)
            size, data = self.worth(n, d)
            law, repeats, surplus = self.constants, 0.0, 0.0
            if self.saturates:
                repeats = max(d / self.unique - 1, 0.0) / TOKENS_FADE
                surplus = max(n / self.balanced(min(self.unique, d)) - 1, 0.0) / PARAMS_FADE
            by_n = np.log(law["alpha"] * law["A"]) - (law["alpha"] + 1) * np.log(size) + log_n - surplus
            by_d = np.log(law["beta"] * law["B"]) - (law["beta"] + 1) * np.log(data) + log_d - repeats
            return by_n - by_d - np.log1p(self.served / (3 * d))

        if np.isfinite(self.most_tokens):
            d = np.log(self.most_tokens)
            middle = np.log(self.balanced(self.most_tokens))
            n = bracketed_root(lambda u: imbalance(u, d), middle - 60, middle + 60, what="the balance of params and tokens")
            if n <= np.log(self.most_params):
                return float(np.exp(n)), self.most_tokens
        n = np.log(self.most_params)
        high = np.log(self.most_tokens) if np.isfinite(self.most_tokens) else 100.0
        return self.most_params, float(np.exp(bracketed_root(lambda u: imbalance(n, u), -100.0, high, what="the balance of params and tokens")))


def _lowest(function, low, high, points=60):
    """Where a function of an array is least on [low, high]: a grid, then ever finer ones around its best point, ends included."""
    while True:
        grid = np.linspace(low, high, points)
        i = int(np.argmin(function(grid)))
        if high - low < 1e-9:
            return grid[i]
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, points - 1)]
