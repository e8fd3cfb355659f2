"""Fibonacci tilings of a text and the phrases that they offer at every depth: exact densities, and when periodic tilings run out of long tiles."""

from collections import Counter
from fractions import Fraction
from math import gcd

import numpy as np

from lawbook.contract import Paper, choice, count, either, listing, positive, probability, real, record, text, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Aperiodic Structures Never Collapse: Fibonacci Hierarchies for Lossless Compression",
    arxiv="2603.14999",
    tags=["compression", "Fibonacci word", "Sturmian words", "quasicrystals", "tilings"],
    source="code",
    says="""A text is cut into long tiles of two words and short tiles of one by the Fibonacci word. Fusing a long tile with the short one behind it, again and again, gives
    phrases of 2, 3, 5, 8, ... words; in the golden tiling phrases of every length go on to cover 72% of the text. A periodic tiling runs out of phrases of Fibonacci length
    after a number of levels that is logarithmic in its period.""",
    notes="""The limit of the words covered is W phi / sqrt 5; an abstract that gives W phi / 5 has lost the root. The law of collapse for periodic tilings is derived here. The
    authors' code also fuses two short tiles, which only slopes below 1/2 need; that is left out. Claims on coding entropy are statements about models and are not tried. Collapse
    is a property of this rule of fusion: a dyadic hierarchy is periodic, covers everything at every level and never collapses. The statement of the code's page that it
    beats bzip2 everywhere is not borne out by its own table (alice29: 35.60% against 28.40%).""",
)

PHI = (1 + 5**0.5) / 2
LEVELS = count(typical=(1, 12), high=80, doc="levels, from tiles of two words on")
SLOPE = either(choice("golden"), real(low=0.0, high=1.0, above=True, below=True, typical=(0.05, 0.95)), doc="share of long tiles; golden is 1/phi")
PATTERN = text(empty=False, doc="tiles L and S that are repeated, in place of a slope", example="LLSLS")
PHASE = real(low=0.0, high=1.0, below=True, doc="offset of the tiling")
WORDS = count("words", typical=(1, 3000), doc="length of the text", example=100_000)
LETTERS = {"pattern must consist of the letters L and S": lambda pattern: pattern is None or set(pattern) <= {"L", "S"}}


def sample_tiling(rng):
    given = {"words": int(rng.integers(1, 2000)), "levels": int(rng.integers(1, 12))}
    kinds = {"slope": float(rng.uniform(0.05, 0.95)), "phase": float(rng.uniform(0, 1)), "pattern": "".join(rng.choice(["L", "S"], size=int(rng.integers(1, 8))))}
    return given | {name: value for name, value in kinds.items() if rng.integers(2)}


def lengths(levels):
    """2, 3, 5, 8, ...: words in a long tile of each level."""
    out = [2, 3]
    while len(out) < levels:
        out.append(out[-1] + out[-2])
    return out[:levels]


def long_tiles(tiles, slope, phase):
    """Whether each of the first tiles is long."""
    k = np.arange(tiles + 1)
    alpha = 1 / PHI if slope == "golden" else slope
    ratio = Fraction(alpha).limit_denominator(100_000)
    if slope == "golden" and phase == 0:
        square = 5 * k * k
        root = np.floor(np.sqrt(square.astype(float))).astype(np.int64)
        root += ((root + 1) ** 2 <= square).astype(np.int64) - (root**2 > square)  # the whole root, without rounding
        steps = (root - k) // 2
    elif float(ratio) == alpha:
        whole = k * ratio.numerator
        steps = whole // ratio.denominator + (whole % ratio.denominator / ratio.denominator + phase >= 1)
    else:
        steps = np.floor(k * alpha + phase)
    return np.diff(steps) == 1


def tilings(words, slope, pattern, phase, levels):
    """For each level the starts, lengths and kinds of its tiles."""
    if pattern is None:
        long = long_tiles(words, slope, phase)
    else:
        long = np.resize(np.array(list(pattern)) == "L", words)
    size = 1 + long
    start = np.cumsum(size) - size
    inside = start < words
    start, long = start[inside], long[inside]
    long[-1] &= start[-1] + 2 <= words
    for _ in range(levels):
        yield start, np.diff(np.append(start, words)), long
        first = ~np.append(False, ~long[1:] & long[:-1])  # all but the short tiles that the long ones before them take in
        fused = long & np.append(~long[1:], False)
        start, long = start[first], fused[first]


def usable(words, slope, pattern, phase, levels):
    """Starts of the long tiles of full Fibonacci length, level by level."""
    return [start[long & (size == full)] for (start, size, long), full in zip(tilings(words, slope, pattern, phase, levels), lengths(levels), strict=True)]


@paper.model(r"LS \to L',\ \text{else} \to S';\quad n_m = \#\{L^{(m)} \text{ of } F_m \text{ words}\}", requires=LETTERS, sample=sample_tiling)
def hierarchy_positions(words: WORDS, *, slope: SLOPE = "golden", pattern: PATTERN = None, phase: PHASE = 0.0, levels: LEVELS = 10) -> vector(
    "levels", of=count(low=0, doc="tiles")
):
    """Long tiles of full Fibonacci length at each level: the places where a phrase of 2, 3, 5, 8, ... words can be looked up."""
    return np.array([len(start) for start in usable(words, slope, pattern, phase, levels)])


@paper.measure(r"\frac{n_m F_m}{W}", requires=LETTERS, sample=sample_tiling)
def hierarchy_coverage(words: WORDS, *, slope: SLOPE = "golden", pattern: PATTERN = None, phase: PHASE = 0.0, levels: LEVELS = 10) -> vector("levels", of=probability()):
    """Share of the text under long tiles of full Fibonacci length at each level."""
    return hierarchy_positions(words, slope=slope, pattern=pattern, phase=phase, levels=levels) * np.array(lengths(levels), float) / words


@paper.limit(r"n_m F_m \to \frac{\varphi}{\sqrt 5} W", closed_form=True, gives=72360.68)
def coverage_limit(words: WORDS) -> positive("words"):
    """Words under long tiles of the golden tiling, at every deep level."""
    _, W = arrays(words)
    return W * PHI / 5**0.5


@paper.limit(r"\frac{F_m}{\varphi^{m+2}} = \frac{\varphi}{\sqrt 5}\left(1 + (-1)^m \varphi^{-2m-6}\right)", closed_form=True, gives=0.764)
def coverage_density(level: count(low=0, typical=(0, 20), doc="m: 0 for tiles of two words", example=0)) -> probability():
    """Share of an infinite text under the long tiles of a level of the golden tiling."""
    xp, m = arrays(level)
    return PHI / 5**0.5 * (1 + xp.where(m % 2 == 0, 1.0, -1.0) * PHI ** (-2 * m - 6))


@paper.law(
    r"(l, s, a, b) \to (\min(l, s),\, |l - s|,\, a + b,\, a \text{ if } l > s \text{ else } b),\quad (l, s, a, b)_0 = (p, q - p, 2, 1)",
    requires={"numerator must be below denominator": lambda numerator, denominator: numerator < denominator},
    gives={"usable": 3, "any": 34},
)
def collapse_depth(numerator: count(typical=(1, 20), doc="long tiles in a period", example=33), denominator: count(typical=(2, 60), doc="tiles in a period", example=34)) -> record(
    usable=count(doc="first level without a long tile of full Fibonacci length"), any=count(doc="first level without any long tile")
):
    """Levels after which a periodic tiling has no phrase of Fibonacci length left, and no long tile at all."""
    common = gcd(numerator, denominator)
    l, s, a, b = numerator // common, (denominator - numerator) // common, 2, 1
    level, full, following, last = 0, 2, 3, None
    while l:
        if a != full and last is None:
            last = level
        l, s, a, b = min(l, s), abs(l - s), a + b, a if l > s else b
        level, full, following = level + 1, following, full + following
    return {"usable": level if last is None else last, "any": level}


@paper.measure(
    r"h_m = \#\{i : w_{i..i+F_m} \in \mathrm{top}_K\}",
    requires={**LETTERS, "levels must be at most 40": lambda levels: levels <= 40},
    sample=lambda rng: {
        "tokens": rng.choice(["a", "b", "c"], size=int(rng.integers(1, 200))).tolist(),
        "levels": int(rng.integers(1, 8)),
        "codebook_size": int(rng.integers(1, 20)),
    },
)
def phrase_hits(
    tokens: listing(text(), least=1, doc="words of a text", example=["to", "be", "or", "not", "to", "be", "that", "is", "to", "be"]),
    *,
    slope: SLOPE = "golden",
    pattern: PATTERN = None,
    levels: LEVELS = 6,
    codebook_size: count(typical=(1, 500), doc="K: the most frequent phrases of each length, of those that occur twice; ties to the earlier") = 500,
) -> vector("levels", of=count(low=0, doc="hits")):
    """Tiles of full Fibonacci length whose phrase is among the most frequent of its length, level by level."""
    _, words = np.unique(np.array(tokens, dtype=object).astype(str), return_inverse=True)
    shorter, phrases, size, hits = words, words, 1, []  # numbers of the phrases of this level and the one before, by their start
    for starts, full in zip(usable(len(tokens), slope, pattern, 0.0, levels), lengths(levels), strict=True):
        both = max(0, len(tokens) - full + 1)
        keys = phrases[:both].astype(np.int64) * (len(tokens) + 1) + shorter[size : size + both]
        _, first, longer, seen = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        shorter, phrases, size = phrases, longer, full
        listed = np.zeros(len(first), bool)
        listed[np.lexsort((first, -seen))[:codebook_size]] = True
        hits.append(int((listed & (seen > 1))[phrases[starts]].sum()))
    return np.array(hits)


def root_lost(level):
    return PHI / 5 + 0 * level


@paper.trial(
    Inequality(search=0),
    of=[coverage_density, coverage_limit, hierarchy_coverage],
    claim=(coverage_density, coverage_limit),
    controls={"root lost": (root_lost, lambda words: words * PHI / 5), "root lost in the limit": (coverage_density, lambda words: words * PHI / 5)},
    quick=5,
    full=60,
)
def golden_coverage(draw, claim):
    """At each of ten levels the coverage of the golden tiling is its density within two tiles of the text's end, and words covered are in the limit."""
    density, limit = claim
    W, m, F = int(draw.log_uniform(1e5, 1e6)), np.arange(10), np.array(lengths(10))
    found = hierarchy_coverage(W)
    return [*abs(found - density(m)), *abs(W * found - limit(W))[5:]], [*(2 * F / W), *(2 * F + W * PHI ** (-2.0 * m - 6))[5:]], {"words": W}


def thue_morse(tiles, slope, phase):
    return np.array([i.bit_count() % 2 == 1 for i in range(tiles)])


@paper.trial(Identity(), of=[hierarchy_positions], claim=long_tiles, controls={"Thue-Morse word": thue_morse}, quick=3, full=10)
def fewest_factors(draw, claim):
    """The golden tiling has exactly n + 1 different stretches of n tiles, the fewest that an aperiodic word can have."""
    n, tiles = np.arange(1, 31), claim(draw.integer(5000, 20_000), "golden", 0.0).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(tiles, 30) @ (1 << np.arange(30)[::-1])
    return [len(np.unique(windows >> (30 - k))) for k in n], n + 1


def no_length_check(numerator, denominator):
    """Takes every long tile as usable."""
    depth = collapse_depth(numerator, denominator)
    return {**depth, "usable": depth["any"]}


@paper.trial(Identity(), of=[collapse_depth], controls={"lengths of tiles not looked at": no_length_check}, quick=6, full=60)
def collapse_by_simulation(draw, claim):
    """For each fraction with a denominator of up to 34 both depths are those of the tiling itself, away from its ends."""
    q = draw.integer(2, 34)
    told, seen = [], []
    for p in (p for p in range(1, q) if gcd(p, q) == 1):
        words = 200 * (p + q)
        full, any_left = [], []
        for (start, size, long), F in zip(tilings(words, p / q, None, 0.0, q + 2), lengths(q + 2), strict=True):
            middle = long & (abs(start - words / 2) < words / 8)
            any_left.append(middle.any())
            full.append((middle & (size == F)).any())
        told.append(list(claim(p, q).values()))
        seen.append([full.index(False), any_left.index(False)])
    return seen, told, {"denominator": q}


def logarithmic(q):
    return np.ceil(np.log(q) / np.log(PHI)) + 2


@paper.trial(Inequality(search=0), of=[collapse_depth], claim=lambda q: q, controls={"every long tile gone after logarithmically many levels": logarithmic}, quick=20, full=200)
def depth_of_collapse(draw, claim):
    """Usable tiles end by log_phi q + 1; long tiles of any length outlast log_phi q and may last q levels."""
    q = draw.integer(8, 2000)
    depths = [collapse_depth(p, q) for p in range(1, q) if gcd(p, q) == 1]
    usable_, any_ = (np.array([depth[name] for depth in depths]) for name in ("usable", "any"))
    logarithm = np.log(q) / np.log(PHI)
    return [usable_.max(), logarithm, any_.max()], [logarithm + 1, any_.min(), claim(q)], {"denominator": q}


def once_is_enough(tokens, **options):
    """Lists phrases that occur once, too."""
    return [len(start) for start in usable(len(tokens), options["slope"], None, 0.0, options["levels"])]


@paper.trial(Identity(), of=[phrase_hits, hierarchy_positions], controls={"phrases that occur once listed": once_is_enough}, quick=20, full=300)
def word_by_word(draw, claim):
    """Hits are those of a scan in plain words: tiles as strings, phrases as tuples."""
    tokens, slope, size = draw.rng.choice(list("abcd"), p=[0.6, 0.2, 0.1, 0.1], size=draw.integer(1, 150)).tolist(), draw.choice(["golden", 0.7, 0.4]), draw.integer(1, 8)
    alpha, tiles, at, k, hits = 1 / PHI if slope == "golden" else Fraction(str(slope)), [], 0, 0, []
    while at < len(tokens):
        wide = 2 if ((k + 1) * alpha // 1 - k * alpha // 1) == 1 and at + 2 <= len(tokens) else 1
        tiles.append((wide == 2, at, wide))
        at, k = at + wide, k + 1
    for F in (2, 3, 5, 8):
        seen = Counter(tuple(tokens[i : i + F]) for i in range(len(tokens) - F + 1))
        book = [phrase for phrase, n in seen.most_common() if n > 1][:size]
        hits.append(sum(long and n == F and tuple(tokens[i : i + F]) in book for long, i, n in tiles))
        fused, i = [], 0
        while i < len(tiles):
            joined = tiles[i][0] and i + 1 < len(tiles) and not tiles[i + 1][0]
            fused.append((joined, tiles[i][1], tiles[i][2] + (tiles[i + 1][2] if joined else 0)))
            i += 1 + joined
        tiles = fused
    return hits, claim(tokens, slope=slope, levels=4, codebook_size=size)


@paper.finding(
    """What collapses in a periodic tiling is the schedule of Fibonacci lengths, not the hierarchy: with 33 long tiles in 34 the phrases of full length end at level 3
    (the long tiles there have 7 words in place of 8), while long tiles go on to level 34; logarithmically many levels are exceeded for 168 of 359 fractions."""
)
def hierarchy_need_not_collapse():
    fractions = [(p, q) for q in range(2, 35) for p in range(1, q) if gcd(p, q) == 1]
    beyond = [(p, q) for p, q in fractions if collapse_depth(p, q)["any"] > logarithmic(q)]
    depth, third = collapse_depth(33, 34), list(tilings(6700, 33 / 34, None, 0.0, 4))[3]
    size = int(np.median(third[1][third[2]]))
    return {"holds": depth == {"usable": 3, "any": 34} and size == 7 and len(beyond) == 168, **depth, "words_at_level_3": size, "beyond": len(beyond), "first": str(beyond[0])}


@paper.finding("""A dyadic hierarchy, which is periodic, offers more hits: on text of Markov words its tiles of 2 and of 8 words are found in the codebook more often.""")
def dyadic_tiles_hit_more():
    rng, words = np.random.default_rng(0), [0]
    following = rng.integers(300, size=(300, 4))
    for choice_ in rng.choice(4, p=[0.7, 0.15, 0.1, 0.05], size=20_000):
        words.append(int(following[words[-1], choice_]))
    tokens = [str(word) for word in words]
    golden = phrase_hits(tokens, levels=4)[[0, 3]].tolist()
    dyadic = []
    for n in (2, 8):
        seen = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
        book = {phrase for phrase, times in seen.most_common(500) if times > 1}
        dyadic.append(sum(tuple(tokens[i : i + n]) in book for i in range(0, len(tokens) - n + 1, n)))
    return {"holds": all(d > g for d, g in zip(dyadic, golden, strict=True)), "golden_2": golden[0], "dyadic_2": dyadic[0], "golden_8": golden[1], "dyadic_8": dyadic[1]}
