"""Heaps' law as a test of diversity: vocabulary growth of generated against human text, and what Zipf's law makes of it."""

import numpy as np

from lawbook.contract import Paper, caution, choice, count, either, integer, listing, nonnegative, positive, real, record, seed, table, text, vector
from lawbook.numerics import arrays
from lawbook.trials import Coverage, Estimate, Forecast, Guarantee, Identity, Prediction, Rate

paper = Paper(
    __name__,
    title="Heaps' Law in GPT-Neo Large Language Model Emulated Corpora",
    arxiv="2311.06377",
    tags=["heaps law", "zipf law", "vocabulary", "generated text", "diversity", "corpus comparison", "bootstrap"],
    source="known",
    says="""Abstracts continued by GPT-Neo models of three sizes still obey Heaps' law: the vocabulary grows as a power of the tokens. The larger the model, the closer
    its growth comes to that of the human abstracts; small models repeat themselves more. Two corpora are compared by their exponents, and by their vocabularies at the same
    number of tokens.""",
    notes="""The paper's fitted values are not used. The first thousand tokens are no power law and are left out of fits; tokenisation and case decide K. The interval of a
    difference comes from resampled documents: a resample repeats documents and so flattens both curves, which cancels in the difference but makes the interval wide: 1.0 to 1.5
    times what the scatter of corpora needs. Resampled tokens give two thirds of it where words repeat inside documents. The infinite tail of Zipf's law is summed by an
    incomplete gamma function, which holds for any number of tokens.""",
)

WORDS = either(listing(text(), least=1), vector("words", of=integer()), doc="one document: words, or their numbers")
HUMAN = ["cells bind the ligand", "we saw ten mice", "genes code for proteins", "some cells die early", "an old mouse ran", "this protein folds fast"]
MODEL = ["cells bind the cells", "we saw the mice", "cells bind the protein", "the cells are cells", "the mice saw mice", "the cells bind cells"]
REFERENCE, GENERATED = ([line.split() for line in lines] for lines in (HUMAN, MODEL))
TOKENS = vector("n", of=positive("tokens", typical=(1e3, 1e7)), doc="lengths", example=[1e4, 1e5])
RANKS = 100_000  # ranks summed at a time, and ranks summed one by one before the tail of an infinite vocabulary


def growth(documents, lengths):
    """Types among the first n tokens of the documents, for each n of `lengths`; types are numbers from 0."""
    ids = np.concatenate(documents)[: lengths[-1]]
    first = np.full(ids.max() + 1, len(ids))
    first[ids[::-1]] = np.arange(len(ids))[::-1]  # the last assignment, which is the first occurrence, stays
    return np.searchsorted(np.sort(first), lengths)


def numbered(*corpora):
    """The corpora with words replaced by numbers, the same in all of them."""
    documents = [np.asarray(document) for corpus in corpora for document in corpus]
    ids = np.unique(np.concatenate(documents), return_inverse=True)[1]
    parts = iter(np.split(ids, np.cumsum([len(document) for document in documents])[:-1]))
    return [[next(parts) for _ in corpus] for corpus in corpora]


@paper.measure(r"V(n) = |\{w_1, \dots, w_n\}|")
def vocabulary_growth(
    documents: listing(WORDS, least=1, doc="the documents of a corpus", example=REFERENCE),
    *,
    points: count("lengths", low=2, typical=(2, 100)) = 50,
    order: choice("given", "shuffled", doc="of the documents; the words of each keep theirs") = "given",
    seed: seed() = 0,
) -> record(tokens=vector("points", of=count("tokens")), types=vector("points", of=count("types"))):
    """Number of different words among the first n tokens of a corpus, at lengths spread evenly on a log scale."""
    (ids,) = numbered(documents)
    if order == "shuffled":
        ids = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    lengths = np.unique(np.rint(np.geomspace(1, sum(map(len, ids)), points)).astype(int))
    return {"tokens": lengths, "types": growth(ids, lengths)}


@paper.law(r"V(n) = K n^\beta", observes="vocabulary", closed_form=True, gives=[3162.28, 12589.25])
def heaps_vocabulary(
    tokens: TOKENS,
    *,
    K: positive("types", typical=(1, 100), fitted=True, doc="10 to 100 for English", example=12.589254),
    beta: positive(high=1, typical=(0.3, 0.8), scale="linear", fitted=True, doc="0.4 to 0.6 for English", example=0.6),
) -> vector("n", of=nonnegative("types")):
    """Vocabulary of a text of n tokens."""
    _, n, k, b = arrays(tokens, K, beta)
    return k * n**b


def drawn_documents(corpus, tokens, rng):
    """Documents drawn with replacement, as many as the corpus has, or more until `tokens` are reached."""
    drawn = []
    while sum(map(len, drawn)) < tokens:
        drawn += [corpus[i] for i in rng.integers(len(corpus), size=len(corpus))]
    return drawn


def compared(reference, generated, bootstrap, n_min, seed, *, resample=drawn_documents):
    """The comparison, with the part that a negative control replaces."""
    corpora = numbered(reference, generated)
    longest = min(sum(map(len, corpus)) for corpus in corpora)
    start = min(n_min, -(-longest // 10))
    if start < n_min:
        caution(f"The shorter corpus has {longest} tokens: the law is fitted from {start} tokens on, where growth is not yet a power law.")
    lengths = np.unique(np.rint(np.geomspace(start, longest, 50)).astype(int))
    x = np.log(lengths) - np.log(lengths).mean()
    pull = x / (x @ x)  # least squares: beta = pull . ln V
    curves = [growth(corpus, lengths) for corpus in corpora]
    beta = [max(float(pull @ np.log(curve)), 0.0) for curve in curves]
    fits = [{"K": float(np.exp(np.mean(np.log(curve)) - b * np.log(lengths).mean())), "beta": b} for curve, b in zip(curves, beta, strict=True)]
    rng = np.random.default_rng(seed)
    resampled = np.array([[pull @ np.log(growth(resample(corpus, longest, rng), lengths)) for corpus in corpora] for _ in range(bootstrap)])
    differences = resampled[:, 1] - resampled[:, 0]
    return {
        "reference": fits[0],
        "generated": fits[1],
        "beta_difference": beta[1] - beta[0],
        "ci": beta[1] - beta[0] + np.quantile(differences, (0.025, 0.975)) - differences.mean(),
        "ratio_at": {"tokens": lengths, "ratio": curves[1] / curves[0]},
    }


def sample_corpora(rng):
    reference, generated = ([rng.integers(20, size=rng.integers(4, 30)) for _ in range(rng.integers(1, 5))] for _ in range(2))
    return {"reference_docs": reference, "generated_docs": generated, "bootstrap": 10, "n_min": int(rng.integers(1, 100))}


@paper.algorithm(
    r"\hat\beta_\text{gen} - \hat\beta_\text{ref},\quad \ln V(n) = \ln K + \beta \ln n,\ n_{\min} \le n \le \min(N_\text{ref}, N_\text{gen})",
    requires={
        "reference_docs must hold at least 4 tokens": lambda reference_docs: sum(map(len, reference_docs)) >= 4,
        "generated_docs must hold at least 4 tokens": lambda generated_docs: sum(map(len, generated_docs)) >= 4,
    },
    sample=sample_corpora,
)
def compare_corpora(
    reference_docs: listing(WORDS, least=1, doc="documents of the human corpus", example=REFERENCE),
    generated_docs: listing(WORDS, least=1, doc="documents of the generated corpus", example=GENERATED),
    *,
    bootstrap: count("resamples", low=10, typical=(10, 50)) = 200,
    n_min: count("tokens", typical=(1, 1000), doc="length from which the law is fitted; a tenth of the shorter corpus where that is less") = 1000,
    seed: seed() = 0,
) -> record(
    reference=record(K=positive(), beta=nonnegative()),
    generated=record(K=positive(), beta=nonnegative()),
    beta_difference=real(doc="generated minus reference; negative: the generated text repeats itself more"),
    ci=vector(2, of=real(), doc="95 % interval of the difference from resampled documents, about the estimate"),
    ratio_at=table(tokens=count("tokens"), ratio=positive(doc="vocabulary of the generated over that of the reference corpus")),
):
    """Vocabulary growth of two corpora up to the same length; the documents of a corpus are taken as exchangeable."""
    return compared(reference_docs, generated_docs, bootstrap, n_min, seed)


@paper.law(
    r"\mathbb{E}V(n) = \sum_r \left(1 - (1 - p_r)^n\right),\ p_r = c\,r^{-s};\qquad \mathbb{E}V(n) \sim \Gamma(1 - 1/s)\,(c n)^{1/s},\ c = 1/\zeta(s)",
    assumes=["Words are independent draws from a Zipf law."],
    requires={"exponent must be above 1 where the vocabulary is infinite": lambda exponent, vocab_size: vocab_size is not None or exponent > 1},
)
def zipf_heaps(
    exponent: positive(typical=(0.7, 3), scale="linear", doc="s: the r-th word comes up in proportion to r^-s", example=1.5),
    tokens: TOKENS,
    *,
    vocab_size: count("types", typical=(100, 1e5), doc="words of the language; infinitely many by default") = None,
) -> record(
    expected=vector("n", of=positive("types")),
    asymptotic=vector("n", of=positive("types", nan=True, infinite=True), doc="growth of an infinite vocabulary at many tokens; NaN for exponents up to 1"),
):
    """Expected vocabulary of n independent words from Zipf's law, and the power of n that it approaches."""
    from scipy.special import gamma, gammainc, zeta

    s, n = float(exponent), np.asarray(tokens, float)
    ranks = vocab_size or RANKS
    weights = zeta(s) if vocab_size is None else sum(float(np.sum(np.arange(i + 1.0, min(i + RANKS, ranks) + 1) ** -s)) for i in range(0, ranks, RANKS))
    expected = np.zeros(len(n))
    with np.errstate(divide="ignore"):
        for i in range(0, ranks, RANKS):
            rare = np.log1p(-(np.arange(i + 1.0, min(i + RANKS, ranks) + 1) ** -s) / weights)
            expected += [-np.expm1(m * rare).sum() for m in n]
    asymptotic = np.full(len(n), np.nan)
    if s > 1:
        asymptotic = gamma(1 - 1 / s) * (n / zeta(s)) ** (1 / s)
    if vocab_size is None:  # integral of 1 - exp(-n c x^-s) from R + 1/2, by parts
        edge = RANKS + 0.5
        at_edge = n / weights * edge**-s
        expected += asymptotic * gammainc(1 - 1 / s, at_edge) + edge * np.expm1(-at_edge)
    return {"expected": expected, "asymptotic": asymptotic}


def asymptotic_as_exact(exponent, tokens, *, vocab_size=None):
    found = zipf_heaps(exponent, tokens, vocab_size=vocab_size)
    return found | {"expected": found["asymptotic"]}


@paper.trial(Identity(rtol=1e-6), of=[zipf_heaps, vocabulary_growth], controls={"asymptotic formula as the expectation": asymptotic_as_exact}, quick=4, full=60)
def sampled_words(draw, claim):
    """The expected vocabulary agrees with counted words of independent draws, and its asymptote with a quadrature."""
    from scipy.special import zeta

    s, size, n = draw.uniform(1.3, 2.5), draw.integer(50, 5000), 3000
    p = np.arange(1.0, size + 1) ** -s
    finite = draw.rng.choice(size, size=(50, n), p=p / p.sum())
    counted = [[vocabulary_growth([words], points=2)["types"][-1] for words in sample] for sample in (draw.rng.zipf(s, size=(50, n)), finite)]
    estimate = Estimate.of(np.array(counted).T)
    t = np.linspace(-60, 250, 20_001)  # the asymptote is the integral of 1 - exp(-n c x^-s) over all x > 0: in powers of e
    integral = (n / zeta(s)) ** (1 / s) * np.trapezoid(-np.expm1(-np.exp(-s * t)) * np.exp(t), t)
    found = claim(s, [n])
    claimed = [found["expected"][0], claim(s, [n], vocab_size=size)["expected"][0], found["asymptotic"][0]]
    return Estimate(np.append(estimate.value, integral), np.append(estimate.error, 0.0)), claimed, {"exponent": s}


def saturated(exponent, tokens):
    return zipf_heaps(exponent, tokens, vocab_size=1000)


@paper.trial(Rate(within=0.02), of=[zipf_heaps], controls={"a thousand words only": saturated}, quick=4, full=40)
def exponent_is_one_over_s(draw, claim):
    """From 1e4 to 1e7 tokens the expected vocabulary grows with the exponent 1/s: its ratio to the asymptote is constant."""
    n = np.geomspace(1e4, 1e7, 7)
    found = claim(draw.choice([1.5, 2.0]), n)
    return n, found["expected"] / found["asymptotic"], 0.0


def corpus(rng, documents=40, length=100):
    """Documents that take half of their words from 15 words of their own, so that words come in bursts."""
    words, own = rng.zipf(1.5, size=(documents, length)), rng.zipf(1.5, size=(documents, 15))
    return np.where(rng.random(words.shape) < 0.5, words, np.take_along_axis(own, rng.integers(15, size=words.shape), 1))


def error_of_line(reference_docs, generated_docs, **_):
    """The interval that the two regressions report, as though the points of a curve were independent."""
    from scipy.stats import linregress

    fits = []
    for docs in (reference_docs, generated_docs):
        curve = vocabulary_growth(docs, points=200)
        late = curve["tokens"] >= 1000
        fits.append(linregress(np.log(curve["tokens"][late]), np.log(curve["types"][late])))
    half = 1.96 * np.hypot(*(fit.stderr for fit in fits))
    return {"ci": fits[1].slope - fits[0].slope + half * np.array([-1, 1])}


@paper.trial(Coverage(at_most=0.1, detect=0.45), of=[compare_corpora], controls={"standard errors of the two lines": error_of_line}, quick=60, full=300)
def same_source(draw, claim):
    """The interval holds 0 for corpora of one source, and excludes it for one that repeats a fifth of its documents."""
    first, second = corpus(draw.rng), corpus(draw.rng)
    intervals = [claim(first, other, bootstrap=40, seed=int(draw.rng.integers(2**31)))["ci"] for other in (second, np.tile(second[:8], (5, 1)))]
    holds = [low <= 0 <= high for low, high in intervals]
    return {"same source": not holds[0], "repeated documents": holds[1]}


def drawn_tokens(corpus, tokens, rng):
    words = np.concatenate(corpus)
    return [words[rng.integers(len(words), size=tokens)]]


def resampled_tokens(reference_docs, generated_docs, *, bootstrap, seed):
    return compared(reference_docs, generated_docs, bootstrap, 1000, seed, resample=drawn_tokens)


@paper.trial(Guarantee(), of=[compare_corpora], controls={"tokens resampled": resampled_tokens}, quick=1, full=10)
def width_of_interval(draw, claim):
    """Where words come in bursts the interval is as wide as 3.92 standard deviations of the difference between corpora of one source, less 15 % for sixty pairs."""
    found = [claim(corpus(draw.rng), corpus(draw.rng), bootstrap=60, seed=i) for i in range(60)]
    needed = 3.92 * np.std([f["beta_difference"] for f in found], ddof=1)
    return 0.85 * needed, float(np.mean([np.ptp(f["ci"]) for f in found])), {"needed": needed}


def square_root(tokens, *, K, beta):
    return heaps_vocabulary(tokens, K=K, beta=0.5) * 1000 ** (beta - 0.5)


@paper.trial(
    Prediction(baseline="straight line through the last tenth", relative=True, at_most=0.05),
    of=[heaps_vocabulary, vocabulary_growth],
    controls={"growth as a square root": square_root},
    quick=12,
    full=100,
)
def second_half(draw, claim):
    """Fitted to the first half of a text with words in bursts, the law predicts the vocabulary of the whole."""
    curve = vocabulary_growth(corpus(draw.rng, documents=1000), points=60)
    n, types = curve["tokens"], curve["types"]
    fitted = (n >= 1000) & (n <= n[-1] / 2)
    beta, log_k = np.polyfit(np.log(n[fitted]), np.log(types[fitted]), 1)
    x, y = n[fitted], types[fitted]
    slope = (y[-1] - np.interp(0.9 * x[-1], x, y)) / (0.1 * x[-1])
    return Forecast(types[-1:], claim(n[-1:], K=np.exp(log_k), beta=beta), [y[-1] + slope * (n[-1] - x[-1])])
