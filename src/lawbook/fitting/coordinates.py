"""Parameters without bounds, as every solver here sees them."""

import numpy as np


def theta_of(z, table, xp):
    """Parameters of points z[..., p], in any array namespace; `table` is that of Coordinates."""
    low, high, two_sided, from_below = table[0], table[1], table[2] > 0, table[3] > 0
    inside = low + (high - low) / (1 + xp.exp(-xp.clip(xp.where(two_sided, z, 0.0), -700, 700)))
    above = low + xp.exp(xp.clip(xp.where(from_below, z, 0.0), -700, 700))
    return xp.where(two_sided, inside, xp.where(from_below, above, z))


class Coordinates:
    """Logarithms of what is positive or bounded below, logits of what lies between two ends, everything else as it is."""

    def __init__(self, parameters):
        low = np.array([p.quantity.low for p in parameters], float)
        high = np.array([p.quantity.high for p in parameters], float)
        self.log = np.array([p.log for p in parameters], bool)
        self.low, self.high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 1.0)
        self.two_sided = np.isfinite(low) & np.isfinite(high)
        self.from_below = ~self.two_sided & (np.isfinite(low) | self.log)
        self.ends = np.array([p.quantity.bounds() for p in parameters], float).reshape(-1, 2)

    @property
    def table(self):
        """What `theta_of` needs, as numbers."""
        return np.array([self.low, self.high, self.two_sided, self.from_below], float)

    def theta(self, z):
        """Parameters of points z[..., p]."""
        return theta_of(z, self.table, np)

    def z(self, theta):
        """Points of parameters theta[..., p], ends of the domain moved inside."""
        share = np.clip((theta - self.low) / np.where(self.two_sided, self.high - self.low, 1.0), 1e-9, 1 - 1e-9)
        logit = np.log(share / (1 - share))
        log = np.log(np.maximum(theta - self.low, 1e-300))
        return np.where(self.two_sided, logit, np.where(self.from_below, log, theta))

    def slopes(self, z):
        """d theta / d z at one point."""
        theta = self.theta(z)
        inside = (theta - self.low) * (self.high - theta) / np.where(self.two_sided, self.high - self.low, 1.0)
        return np.where(self.two_sided, inside, np.where(self.from_below, theta - self.low, 1.0))

    def starts(self, count, rng):
        """`count` points spread evenly, as a scrambled Sobol sequence, over the parameters' typical ranges: logarithmically where they are scales."""
        from scipy.stats import qmc

        if not len(self.log):
            return np.empty((count, 0))
        u = qmc.Sobol(len(self.log), rng=rng).random(2 ** int(np.ceil(np.log2(count))))[:count]
        low, high = self.ends.T
        log = self.log & (low > 0)
        safe_low, safe_high = np.where(log, low, 1.0), np.where(log, high, 1.0)
        return self.z(np.where(log, safe_low * (safe_high / safe_low) ** u, low + u * (high - low)))
