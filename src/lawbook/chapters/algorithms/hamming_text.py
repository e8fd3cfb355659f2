"""Hamming distances of a pattern to every stretch of a text: exact, up to k, and within a factor 1 - epsilon."""

import math
from functools import cache

import numpy as np

from lawbook.contract import Paper, choice, count, integer, nonnegative, positive, probability, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Coverage, Guarantee, Rate

paper = Paper(
    __name__,
    title="Faster Algorithms for Text-to-Pattern Hamming Distances",
    arxiv="2310.13174",
    tags=["string matching", "FFT", "Hamming distance", "approximate matching"],
    source="known",
    says="""How many symbols of a pattern of m symbols differ from the text at each of its places? The paper finds all distances in n sqrt(m) steps, without the logarithms
    of earlier algorithms, and approximate ones in fewer than n / epsilon. What runs well on real machines is older: frequent symbols by FFT, rare ones by direct updates;
    and, for approximate distances, symbols hashed to few letters.""",
    notes="""The paper saves logarithms by packed words, which no real size repays; the algorithms here are those of Fischer and Paterson, of Abrahamson, and of Kopelowitz and
    Porat, all with their guarantees. Which symbols go to the FFT is decided by the two costs themselves, not by the occurrences in the pattern alone.""",
)

UPDATES_PER_POINT = 15  # direct updates that take as long as the transforms of one symbol, for each symbol of the text
COMPARISONS_PER_POINT = 1000  # comparisons likewise
SYMBOL = integer(typical=(0, 4))
PATTERN = vector("m", of=SYMBOL, most=12, doc="symbols as whole numbers", example=[0, 1, 1])
TEXT = vector("n", of=SYMBOL, least=2, most=40, doc="symbols as whole numbers", example=[0, 1, 2, 0, 1, 1, 0])
FITS = {"pattern must be at most as long as text": lambda pattern, text: len(pattern) <= len(text)}


def sample_strings(rng):
    n = int(rng.integers(2, 60))
    return {"pattern": rng.integers(4, size=int(rng.integers(1, n + 1))), "text": rng.integers(4, size=n)}


def numbered(pattern, text):
    """Symbols of the pattern as 0..sigma-1, symbols of the text alike, and sigma where the pattern does not have them."""
    low, high = pattern.min(), pattern.max()
    if high - low < 4 * len(text):  # by a table, else by search
        table = np.zeros(high - low + 3, np.int64)  # its ends are for symbols out of range
        table[pattern - low + 1] = 1
        sigma = int(table.sum())
        table = np.where(table == 1, np.cumsum(table) - 1, sigma)
        return table[pattern - low + 1], table[np.clip(text, low - 1, high + 1) - low + 1], sigma
    alphabet, coded = np.unique(pattern, return_inverse=True)
    place = np.minimum(np.searchsorted(alphabet, text), len(alphabet) - 1)
    return coded, np.where(alphabet[place] == text, place, len(alphabet)), len(alphabet)


def fft_matches(pattern, text, symbols):
    """Places where pattern and text agree in one of `symbols`, at each shift: a correlation for each symbol, by blocks of a few lengths of the pattern."""
    from scipy.fft import irfft, next_fast_len, rfft

    m, n = len(pattern), len(text)
    length = min(next_fast_len(n, real=True), next_fast_len(max(8 * m, 1 << 14), real=True))
    step, total = length - m + 1, np.zeros(n - m + 1, np.int64)
    spectra = {c: rfft((pattern == c)[::-1].astype(float), length) for c in symbols}
    for start in range(0, n - m + 1, step):
        block = text[start : start + length]
        found = sum((rfft((block == c).astype(float), length) * spectra[c] for c in symbols), np.zeros(length // 2 + 1, complex))
        matches = np.rint(irfft(found, length)[m - 1 :]).astype(np.int64)[: n - m + 1 - start]
        total[start : start + len(matches)] += matches
    return total


@cache
def updater():
    """Compiled: for each text position the matches with equal symbols of the pattern, added shift by shift."""
    from lawbook.numerics.kernels import compiled

    def update(text, order, starts, light, matches):
        for j in range(len(text)):
            c = text[j]
            if c < len(light) and light[c]:
                for i in range(starts[c], starts[c + 1]):
                    if order[i] > j:
                        break
                    if j - order[i] < len(matches):
                        matches[j - order[i]] += 1

    return compiled(update)


def light_matches(pattern, text, light):
    """Places where pattern and text agree in a light symbol, at each shift, by direct updates."""
    order = np.argsort(pattern, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(pattern, minlength=len(light))))
    matches = np.zeros(len(text) - len(pattern) + 1, np.int64)
    updater()(text, order, starts, light, matches)
    return matches


@paper.algorithm(r"d_i = m - \sum_c \sum_j 1[T_{i+j} = c]\, 1[P_j = c]", requires=FITS, sample=sample_strings)
def hamming_distances(
    pattern: PATTERN,
    text: TEXT,
    *,
    method: choice("auto", "fft", "abrahamson", doc="transforms for all symbols, or for frequent ones alone; auto: for all where the pattern has at most 30") = "auto",
) -> vector("shifts", of=count(low=0)):
    """The number of mismatches at every shift, exactly."""
    P, T, sigma = numbered(pattern, text)
    updates = np.bincount(P, minlength=sigma) * np.bincount(T, minlength=sigma + 1)[:sigma]
    heavy = updates > UPDATES_PER_POINT * len(T)
    if method == "fft" or (method == "auto" and sigma <= 30):
        heavy[:] = True
    matches = np.zeros(len(T) - len(P) + 1, np.int64)
    if heavy.any():
        matches += fft_matches(P, T, np.flatnonzero(heavy))
    if not heavy.all():
        matches += light_matches(P, T, ~heavy)
    return len(P) - matches


@cache
def comparer():
    """Compiled: comparisons at each shift that stop once there are more than k mismatches, while the budget lasts; the first shift left over."""
    from lawbook.numerics.kernels import compiled

    def compare(pattern, text, k, budget, distances):
        for i in range(len(distances)):
            misses, j = 0, 0
            while j < len(pattern) and misses <= k:
                block = pattern[j : j + 256]  # by blocks, which become vector instructions
                against = text[i + j : i + j + len(block)]
                for l in range(len(block)):
                    misses += block[l] != against[l]
                j += 256
            distances[i] = misses if misses <= k else -1
            budget -= j
            if budget < 0:
                return i + 1
        return len(distances)

    return compiled(compare)


@paper.algorithm(r"d_i \text{ if } d_i \le k,\ \text{else } -1", requires=FITS, sample=lambda rng: {**sample_strings(rng), "k": int(rng.integers(0, 20))})
def hamming_k_bounded(pattern: PATTERN, text: TEXT, k: count(low=0, typical=(0, 20), doc="mismatches that are of interest", example=1)) -> vector("shifts", of=integer(low=-1)):
    """The number of mismatches where it is at most k, and -1 where it is more: by comparisons that stop early, or by all distances where those would take longer."""
    P, T, sigma = numbered(pattern, text)
    kind = np.uint8 if sigma < 255 else np.int32
    distances = np.empty(len(T) - len(P) + 1, np.int64)
    budget = COMPARISONS_PER_POINT * len(T) * (1 + min(sigma, math.isqrt(len(P))))
    done = comparer()(P.astype(kind), T.astype(kind), k, budget, distances)
    if done < len(distances):
        rest = hamming_distances(P, T[done:])
        distances[done:] = np.where(rest <= k, rest, -1)
    return distances


def hashed(pattern, text, letters, rounds, seed):
    """The largest distance in some rounds, each with symbols hashed to random letters; never more than the true one."""
    rng, alphabet = np.random.default_rng(seed), np.unique(np.append(pattern, text))
    P, T = np.searchsorted(alphabet, pattern), np.searchsorted(alphabet, text)
    best = np.zeros(len(T) - len(P) + 1)
    for _ in range(rounds):
        letter = rng.integers(letters, size=len(alphabet))
        np.maximum(best, hamming_distances(letter[P], letter[T]), out=best)
    return best


@paper.algorithm(
    r"\hat d_i = \max_{t \le r} d_i(h_t(P), h_t(T)),\quad r = \lceil \log_4((n - m + 1)/\delta) \rceil,\quad h_t: \Sigma \to \{1..\lceil 4/\epsilon \rceil\}",
    requires=FITS,
    sample=lambda rng: {**sample_strings(rng), "epsilon": float(rng.uniform(0.1, 0.9)), "delta": float(rng.uniform(0.01, 0.5)), "seed": int(rng.integers(100))},
)
def hamming_approx(
    pattern: PATTERN,
    text: TEXT,
    epsilon: probability(above=True, below=True, typical=(0.1, 0.9), doc="relative error", example=0.2),
    delta: probability(above=True, below=True, typical=(0.01, 0.5), doc="probability that some shift is further off", example=0.05),
    seed: seed(example=0),
) -> vector("shifts", of=nonnegative()):
    """Distances between (1 - epsilon) d and d, at all shifts together with probability 1 - delta; shifts that match exactly stay 0."""
    rounds = max(1, math.ceil(math.log((len(text) - len(pattern) + 1) / delta, 4)))
    return hashed(pattern, text, math.ceil(4 / epsilon), rounds, seed)


@paper.law(
    r"n\sqrt m,\quad n\sqrt{m \log_2(m+1)},\quad n + \frac{nk}{\sqrt m},\quad \epsilon^{-0.93} n",
    closed_form=True,
    gives={"exact": 1e8, "bounded": 1.1e6},
)
def hamming_cost(
    samples: count("symbols", typical=(1e3, 1e8), doc="n: length of the text", example=1_000_000),
    pattern_length: count("symbols", typical=(10, 1e6), doc="m", example=10_000),
    k: count(low=0, scale="linear", typical=(0, 1000), doc="largest distance of interest", example=10),
    epsilon: positive(typical=(0.01, 0.5), doc="relative error", example=0.1),
) -> record(exact=positive(), abrahamson=positive(), bounded=positive(), approx=positive()):
    """Operations, without constants: the paper's exact algorithm, Abrahamson's, that for distances up to k, and the approximate one."""
    xp, n, m, k, eps = arrays(samples, pattern_length, k, epsilon)
    root = xp.sqrt(m)
    return {"exact": n * root, "abrahamson": n * xp.sqrt(m * xp.log2(m + 1)), "bounded": n + n * k / root, "approx": n * eps**-0.93}


def instance(rng):
    """(pattern, text): random, periodic, or with exact and near matches."""
    n, sigma = int(rng.integers(20, 401)), int(rng.choice([2, 4, 20, 100, 400]))
    m = int(rng.integers(1, n // 2))
    pattern, text = rng.integers(sigma, size=m), rng.integers(sigma + 3, size=n) * rng.choice([1, 10**6])
    kind = rng.integers(4)
    if kind == 1:  # one period through both
        text = np.resize(pattern[:3], n)
        pattern = np.resize(pattern[:3], m)
    elif kind > 1:
        for at in rng.integers(n - m + 1, size=2):
            text[at : at + m] = pattern
        hit = rng.random(n) < 0.1 * (kind == 3)
        text[hit] = rng.integers(sigma, size=hit.sum())
    return pattern, text


def brute_force(pattern, text):
    return (np.lib.stride_tricks.sliding_window_view(text, len(pattern)) != pattern).sum(1)


def not_reversed(pattern, text, *, method):
    """Convolves in place of correlating."""
    return hamming_distances(pattern[::-1], text, method=method)


@paper.trial(
    Guarantee(),
    of=[hamming_distances, hamming_k_bounded],
    claim=(hamming_distances, hamming_k_bounded),
    controls={
        "pattern not reversed": (not_reversed, hamming_k_bounded),
        "stops at the k-th mismatch": (hamming_distances, lambda pattern, text, k: hamming_k_bounded(pattern, text, max(k - 1, 0))),
    },
    quick=30,
    full=400,
)
def equal_to_brute_force(draw, claim):
    """Every exact method, and the bounded one for several k, gives the distances of comparing all pairs; approximate ones are never larger, and 0 where they are."""
    exact, limited = claim
    pattern, text = instance(draw.rng)
    wanted = brute_force(pattern, text)
    same = all((exact(pattern, text, method=method) == wanted).all() for method in ("auto", "fft", "abrahamson"))
    near = hamming_approx(pattern, text, 0.5, 0.5, draw.integer(0, 1000))
    same &= bool((near <= wanted).all() and (near[wanted == 0] == 0).all())
    return bool(same and all((limited(pattern, text, k) == np.where(wanted <= k, wanted, -1)).all() for k in (0, 1, int(np.median(wanted)), len(pattern))))


def hashed_once(pattern, text, epsilon, delta, seed):
    return hashed(pattern, text, 2, 1, seed)


@paper.trial(Coverage(at_most=0.05, detect=0.22), of=[hamming_approx], controls={"two letters and one round": hashed_once}, quick=120, full=600)
def approximation(draw, claim):
    """With epsilon .2 and delta .05 some shift is off by more than a fifth in at most 5% of the texts, half of which hold near matches."""
    sigma, m = draw.choice([4, 20, 100]), 60
    pattern, text = draw.rng.integers(sigma, size=m), draw.rng.integers(sigma, size=300)
    if draw.integer(0, 1):
        at = draw.integer(0, 240)
        text[at : at + m] = np.where(draw.rng.random(m) < 0.1, draw.rng.integers(sigma, size=m), pattern)
    true, told = brute_force(pattern, text), claim(pattern, text, 0.2, 0.05, draw.integer(0, 10**6))
    return bool((told < 0.8 * true).any() or (told > true).any())


def all_pairs(pattern, text):
    return len(pattern) * len(text)


def light_updates(pattern, text):
    """Direct updates of Abrahamson's algorithm."""
    P, T, sigma = numbered(pattern, text)
    in_pattern = np.bincount(P, minlength=sigma)
    light = in_pattern <= math.ceil(math.sqrt(len(P) * math.log2(len(P) + 1)))
    return int((in_pattern * np.bincount(T, minlength=sigma + 1)[:sigma])[light].sum())


@paper.trial(Rate(within=0.05), of=[hamming_cost, hamming_distances], claim=light_updates, controls={"all pairs compared": all_pairs}, quick=2, full=5)
def updates_against_pattern(draw, claim):
    """With sqrt(m) symbols, where every symbol is just light, direct updates grow as the law says: as the square root of the pattern's length."""
    sizes = 2 ** np.arange(8, 15)
    work = [claim(draw.rng.integers(math.isqrt(m), size=m), draw.rng.integers(math.isqrt(m), size=200_000)) for m in sizes.tolist()]
    cost = hamming_cost(200_000, sizes, 10, 0.1)["exact"]
    return sizes, work, np.log(cost[-1] / cost[0]) / np.log(sizes[-1] / sizes[0])
