"""Random streams of trials: reproducible from (seed, names), and replayable, so that an optimiser can steer the draws."""

import hashlib

import numpy as np


def generator(seed, *names):
    """A NumPy generator that depends on the seed and the names alone, the same on every machine and with any number of workers."""
    words = np.frombuffer(hashlib.sha256("\x1f".join(map(str, names)).encode()).digest(), np.uint32)
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))


class Draw:
    """Random values for one run of a trial.

    Each value is the image of one number in (0, 1) on a tape. A random run writes the tape; a search for a counterexample replays it with other
    numbers: the continuous draws move, the discrete ones keep their values. `draw.rng` is for bulk noise, which a search leaves alone.
    """

    def __init__(self, rng, tape=None, choices=None, size=1):
        self.rng = rng
        self.size = size  # how many values a trial of a distribution is asked for
        self.tape = [] if tape is None else list(tape)
        self.choices = [] if choices is None else list(choices)
        self._next, self._next_choice = 0, 0

    def _uniforms(self, size):
        needed = 1 if size is None else int(np.prod(size))
        if len(self.tape) < self._next + needed:
            missing = self._next + needed - len(self.tape)
            self.tape.extend(self.rng.uniform(size=missing).tolist())
        values = np.clip(self.tape[self._next : self._next + needed], 1e-12, 1 - 1e-12)
        self._next += needed
        return values[0] if size is None else values.reshape(size)

    def uniform(self, low=0.0, high=1.0, size=None):
        return low + (high - low) * self._uniforms(size)

    def log_uniform(self, low, high, size=None):
        return low * (high / low) ** self._uniforms(size)

    def normal(self, mean=0.0, deviation=1.0, size=None):
        from scipy.special import ndtri

        return mean + deviation * ndtri(self._uniforms(size))

    def exponential(self, size=None):
        return -np.log1p(-self._uniforms(size))

    def dirichlet(self, concentration, length):
        """One probability vector with equal concentrations."""
        from scipy.special import gammaincinv

        weights = gammaincinv(concentration, self._uniforms(length)) + 1e-300
        return weights / weights.sum()

    def integer(self, low, high):
        """A whole number from low to high, both included."""
        return self._choose(lambda: int(self.rng.integers(low, high + 1)))

    def choice(self, options):
        return options[self._choose(lambda: int(self.rng.integers(len(options))))]

    def _choose(self, make):
        if len(self.choices) <= self._next_choice:
            self.choices.append(make())
        value = self.choices[self._next_choice]
        self._next_choice += 1
        return value
