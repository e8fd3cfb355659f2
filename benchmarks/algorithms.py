"""Algorithms beside their peers, one thread: medians of processor time on the same input, their ratio, what each reaches, and how time grows with size.

Peers that are not installed are named as such (tokenizers, pot, networkx). Usage: python benchmarks/algorithms.py [megabytes of text] [picture]
"""

import os

os.environ |= {"RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before anything is imported

import bz2
import importlib
import json
import lzma
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from _timing import median_seconds

from lawbook.chapters.algorithms.bpe_greedy import bpe_apply, bpe_train
from lawbook.chapters.algorithms.class_ot_son import class_level_ot, class_ot, class_purity
from lawbook.chapters.algorithms.dataset_msc import compress_msc, compression_curve, kernel_entropy, overlap
from lawbook.chapters.algorithms.eim_matrix_limits import eim_logdet
from lawbook.chapters.algorithms.fibonacci_hierarchy import hierarchy_positions, lengths, phrase_hits
from lawbook.chapters.algorithms.hamming_text import comparer, hamming_approx, hamming_distances, hamming_k_bounded, numbered
from lawbook.chapters.algorithms.log_proximity import best_proximity, proximity_distance

ROWS, CURVES = [], []
FIRST_CALLS = """
import time
began = time.process_time()
from lawbook.chapters.algorithms.{paper} import {name}
{call}
print(time.process_time() - began)
"""


def peer(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def row(problem, ours, other, theirs, difference):
    """A line of the table; `theirs` is None where the peer is missing."""
    ROWS.append((problem, ours, other, theirs, difference))
    shown = f"{theirs:10.4f}{theirs / ours:9.2f}" if theirs is not None else f"{'not installed':>19}"
    print(f"{problem:52}{ours:10.4f}  {other:28}{shown}  {difference}", flush=True)


def curve(name, sizes, seconds, claimed, exponent):
    """Time against size with the fitted exponent; `claimed` in words, with its number for comparison."""
    fitted = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    CURVES.append((name, np.array(sizes), np.array(seconds), fitted, claimed))
    print(f"{name:52} exponent {fitted:.2f} over {sizes[0]:.3g} to {sizes[-1]:.3g}, claimed {claimed} ({exponent:.2f})", flush=True)


def compilation():
    calls = {
        "bpe_greedy": ("bpe_train", "bpe_train('abab', 1)"),
        "hamming_text": (
            "hamming_distances, hamming_k_bounded",
            "import numpy as np; a = np.arange(40); hamming_distances(a, a, method='abrahamson'); hamming_k_bounded(a, a, 1)",
        ),
        "class_ot_son": ("class_ot", "import numpy as np; class_ot(np.eye(4), row_labels=np.array([0, 0, 1, 1]), column_labels=np.array([0, 0, 1, 1]))"),
    }
    for paper, (name, call) in calls.items():
        with tempfile.TemporaryDirectory() as cache:
            code = FIRST_CALLS.format(paper=paper, name=name, call=call)
            spent = [
                float(subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": cache}, capture_output=True, check=True).stdout)
                for _ in range(2)
            ]
        print(f"{paper}: import and first call {spent[0]:.2f} s with compilation, {spent[1]:.2f} s from the cache", flush=True)


def zipf_text(characters, vocabulary=200_000):
    """Random words with English letter frequencies, their own frequencies by Zipf's law."""
    rng = np.random.default_rng(0)
    letters, weights = np.array(list("etaoinshrdlucmfwypvbgkjqxz")), 1 / np.arange(2, 28)
    words = np.array(["".join(rng.choice(letters, size=n, p=weights / weights.sum())) for n in rng.integers(1, 12, size=vocabulary)])
    ranks = 1 / np.arange(1, vocabulary + 1) ** 1.05
    blocks, size = [], 0
    while size < characters:
        blocks.append(" ".join(words[rng.choice(vocabulary, size=200_000, p=ranks / ranks.sum())]))
        size += len(blocks[-1]) + 1
    return " ".join(blocks)[:characters]


def hugging_face(tokenizers, text, merges, split):
    """(number of merges, merges) of the Rust trainer; without splitting the text is one sequence."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    if split:
        model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    alphabet = len(set(text) - set(" \n\t\r" if split else ""))
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=alphabet + merges, show_progress=False)
    model.train_from_iterator([text[i : i + 10**6] for i in range(0, len(text), 10**6)] if split else [text], trainer)
    return [list(pair) for pair in json.loads(model.to_str())["model"]["merges"]][:merges]


def applied(text, merges):
    return len(bpe_apply(list(text), merges))


def bpe(megabytes):
    tokenizers, size = peer("tokenizers"), round(megabytes * 1e6)
    text = zipf_text(max(size, 2_000_000))
    small = text[:100_000]
    for merges in (200, 1000):
        ours, found = median_seconds(bpe_train, small, merges, repeats=3)
        theirs, learned = median_seconds(hugging_face, tokenizers, small, merges, False, repeats=1) if tokenizers else (None, None)
        told = f"tokens {found['length']} against {applied(small, learned)}" if learned else f"tokens {found['length']}"
        row(f"BPE, one sequence of 100 000, {merges} merges", ours, "Hugging Face", theirs, told)
    ours, found = median_seconds(bpe_train, text[:size], 10_000, pretokenize=True, repeats=1)
    theirs, learned = median_seconds(hugging_face, tokenizers, text[:size], 10_000, True, repeats=1) if tokenizers else (None, None)
    same = sum(map(tuple.__eq__, map(tuple, found["merges"]), map(tuple, learned))) if learned else 0
    shared = len(set(map(tuple, found["merges"])) & set(map(tuple, learned or [])))
    row(f"BPE, words of {megabytes:g} MB, 10 000 merges", ours, "Hugging Face", theirs, f"{shared} merges shared, {same} in the same place")
    sizes = [62_500 * 2**i for i in range(6)]
    curve("BPE, merges = symbols / 50", sizes, [median_seconds(bpe_train, text[:n], n // 50, repeats=3)[0] for n in sizes], "N log M", 1.0)


def hamming():
    rng = np.random.default_rng(0)
    for n, m, symbols in ((200_000, 5000, 4), (200_000, 5000, 50), (200_000, 5000, 2000), (1_000_000, 20_000, 50), (1_000_000, 20_000, 2000)):
        pattern, text = rng.integers(symbols, size=m), rng.integers(symbols, size=n)
        hamming_distances(pattern, text, method="abrahamson")
        compared(pattern[:10], text[:20])
        compared(pattern, text[:m])
        ours, found = median_seconds(hamming_distances, pattern, text, repeats=5)
        brute, wanted = median_seconds(compared, pattern, text, repeats=1)
        name = f"Hamming, n = {n}, m = {m}, {symbols} symbols"
        row(name, ours, "compiled brute force", brute, f"largest difference {np.abs(found - wanted).max()}")
        if symbols <= 50:
            row(name, ours, "one FFT per symbol", median_seconds(hamming_distances, pattern, text, method="fft", repeats=3)[0], "0")
    few = median_seconds(hamming_k_bounded, pattern, text, 10, repeats=3)[0]
    row("Hamming up to 10, n = 1000000, m = 20000", few, "all distances", ours, "")
    pattern, text = rng.integers(100, size=500), rng.integers(100, size=20_000)
    spent, near = median_seconds(hamming_approx, pattern, text, 0.2, 0.05, 0, repeats=3)
    true = hamming_distances(pattern, text)
    row("Hamming within .2, n = 20000, m = 500", spent, "exact", median_seconds(hamming_distances, pattern, text)[0], f"least ratio {np.min(near / np.maximum(true, 1)):.3f}")
    sizes = [2**k for k in range(10, 17)]
    seconds = []
    for m in sizes:
        pattern, text = rng.integers(int(m**0.5), size=m), rng.integers(int(m**0.5), size=400_000)
        seconds.append(median_seconds(hamming_distances, pattern, text, method="abrahamson", repeats=3)[0])
    curve("Hamming exact, sqrt(m) symbols, against m", sizes, seconds, "sqrt m log m", 0.55)


def compared(pattern, text):
    """All pairs compared, by the bounded algorithm's machine code without its bound."""
    P, T, symbols = numbered(pattern, text)
    kind, distances = np.uint8 if symbols < 255 else np.int32, np.empty(len(T) - len(P) + 1, np.int64)
    comparer()(P.astype(kind), T.astype(kind), len(P), 2**62, distances)
    return distances


def transport():
    ot, rng = peer("ot"), np.random.default_rng(0)
    labels = np.arange(60) % 3
    centres = 2 * rng.normal(size=(3, 2))
    x, y = centres[labels] + rng.normal(size=(60, 2)), centres[labels] + [1.0, 0.5] + rng.normal(size=(60, 2))
    cost = ((x[:, None] - y) ** 2).sum(2)
    cost /= cost.max()
    weights = np.full(60, 1 / 60)
    ours, plain = median_seconds(class_ot, cost, row_labels=labels, column_labels=labels, strength=0.0)
    theirs, plan = median_seconds(ot.emd, weights, weights, cost) if ot else (None, None)
    row("transport, 60 x 60", ours, "POT emd", theirs, f"costs differ by {abs((plan * cost).sum() - plain['cost']):.1e}" if ot else "")
    class_ot(cost, row_labels=labels, column_labels=labels, iters=10)
    ours, fused = median_seconds(class_ot, cost, row_labels=labels, column_labels=labels, repeats=3)
    gap = abs(fused["cost"] - class_level_ot(cost, labels, labels)["cost"])
    theirs, model = median_seconds(lambda: ot.da.SinkhornLpl1Transport(reg_e=0.05, reg_cl=0.1).fit(Xs=x, ys=labels, Xt=y), repeats=3) if ot else (None, None)
    told = (
        f"purity {class_purity(fused['plan'], labels, labels):.3f}"
        + (f" against {class_purity(model.coupling_, labels, labels):.3f}" if ot else "")
        + f", plain {class_purity(plain['plan'], labels, labels):.3f}"
    )
    row("transport of classes, 60 x 60", ours, "POT SinkhornLpl1", theirs, f"{told}; {gap:.1e} from transport between classes")


def compression():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    groups = list(rng.normal(size=(1000, 5, 3)))
    for i in range(6):
        groups[i][0] += 8 * rng.normal(size=3) / 1.7
    ours, found = median_seconds(compress_msc, groups, 100, 0.5, repeats=3)

    def told(indices):
        kept = np.concatenate([groups[i] for i in indices])
        return f"entropy {kernel_entropy(kept, 0.5):.3f}, covered {overlap(groups, indices, 0.5):.3f}, outliers {np.sum(np.asarray(indices) < 6)}"

    def nearest_to_means():
        means = np.array([group.mean(0) for group in groups])
        model = KMeans(100, n_init=1, random_state=0).fit(means)
        return np.unique(np.argmin(model.transform(means), axis=0))

    theirs, picked = median_seconds(nearest_to_means, repeats=3)
    row("compression, 100 of 1000 structures", ours, "k-means picking", theirs, f"{told(found['indices'])} against {told(picked)}")
    for method, name in (("fps", "farthest point"), ("random", "random")):
        theirs, at = median_seconds(compression_curve, groups, 0.5, np.array([100]), method=method, repeats=1)
        row("compression, 100 of 1000 structures", ours, name, theirs, f"entropy {found['entropy']:.3f} against {at['entropy'][0]:.3f}")


def matrices():
    from scipy.interpolate import BarycentricInterpolator

    rng, mu = np.random.default_rng(0), np.linspace(0, 1, 201)
    coefficients, m = np.stack([0.45 * np.cos(mu), 0.36 * mu], 1), rng.normal(size=(2, 300, 300))
    m = m + m.swapaxes(1, 2)
    m /= np.linalg.norm(m, 2, axis=(1, 2))[:, None, None]

    def at(theta):
        return np.linalg.slogdet(np.eye(300) - np.tensordot(theta, m, 1))[1]

    def chebyshev():
        nodes = 0.5 - 0.5 * np.cos((np.arange(8) + 0.5) * np.pi / 8)
        return BarycentricInterpolator(nodes, [at([0.45 * np.cos(x), 0.36 * x]) for x in nodes])(mu)

    ours, found = median_seconds(eim_logdet, m, coefficients, 12, 8, repeats=1)
    theirs, wanted = median_seconds(lambda: np.array([at(theta) for theta in coefficients]), repeats=1)
    row(
        "201 log-determinants of 300 x 300",
        ours,
        "numpy at every parameter",
        theirs,
        f"largest error {np.abs(found['log_det'] - wanted).max():.1e}, certified {found['error_bound']:.1e}",
    )
    theirs, curve_ = median_seconds(chebyshev, repeats=1)
    row(
        "201 log-determinants of 300 x 300",
        ours,
        "8 Chebyshev nodes",
        theirs,
        f"largest error {np.abs(found['log_det'] - wanted).max():.1e} against {np.abs(curve_ - wanted).max():.1e}",
    )


def tilings():
    rng, words = np.random.default_rng(0), [0]
    following = rng.integers(2000, size=(2000, 4))
    for pick in rng.choice(4, p=[0.7, 0.15, 0.1, 0.05], size=200_000):
        words.append(int(following[words[-1], pick]))
    tokens = [f"w{word}" for word in words]
    ours, hits = median_seconds(phrase_hits, tokens, levels=4, repeats=3)

    def dyadic():
        found = []
        for n in (2, 4, 8):
            seen = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
            book = {phrase for phrase, times in seen.most_common(500) if times > 1}
            found.append(n * sum(tuple(tokens[i : i + n]) in book for i in range(0, len(tokens) - n + 1, n)) / len(tokens))
        return found

    theirs, covered = median_seconds(dyadic, repeats=1)
    share = hits * np.array(lengths(4)) / len(tokens)
    row("phrases of 200 000 words", ours, "dyadic tiles", theirs, f"covered by hits at 2, 3, 5, 8 words {np.round(share, 3)} against {np.round(covered, 3)} at 2, 4, 8")
    data = " ".join(tokens).encode()
    sizes = {name: len(pack(data)) / len(data) for name, pack in (("xz", lzma.compress), ("bzip2", bz2.compress), ("zlib", zlib.compress))}
    print(f"{'':52}the same text by " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in sizes.items()))
    numbers = [2**k for k in range(14, 21)]
    curve("tiles of a Fibonacci hierarchy", numbers, [median_seconds(hierarchy_positions, n, repeats=3)[0] for n in numbers], "W", 1.0)


def graphs():
    from sklearn.cluster import SpectralClustering
    from sklearn.metrics import adjusted_rand_score

    networkx, rng = peer("networkx"), np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    A = np.triu(rng.random((100, 100)) < np.where(labels[:, None] == labels, 0.3, 0.1), 1).astype(float)
    A = A + A.T
    ours, D = median_seconds(proximity_distance, A, "comm", 1.0, logarithmic=False)
    if networkx:
        theirs, table = median_seconds(networkx.communicability_exp, networkx.from_numpy_array(A), repeats=3)
        H = np.array([[table[i][j] for j in range(100)] for i in range(100)])
        wanted = (np.diag(H)[:, None] + np.diag(H) - 2 * H) / 2
        row("communicability distances, 100 nodes", ours, "networkx", theirs, f"relative difference {np.abs(D - wanted).max() / wanted.max():.1e}")
    else:
        row("communicability distances, 100 nodes", ours, "networkx", None, "")
    ours, best = median_seconds(best_proximity, A, labels, repeats=1)
    theirs, found = median_seconds(lambda: SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(A), repeats=3)
    told = f"adjusted Rand {best['ari'][0]:.3f} ({best['kernel'][0]}) against {adjusted_rand_score(labels, found):.3f}"
    row("best of 96 proximities, 100 nodes", ours, "spectral clustering (one)", theirs, told)


def picture(path):
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), width_ratios=(1.25, 1), layout="constrained")
    shown = [(f"{problem}\n{other}", theirs / ours) for problem, ours, other, theirs, _ in ROWS if theirs is not None][::-1]
    left.barh(range(len(shown)), [ratio for _, ratio in shown], left=0, color=["#4477aa" if ratio >= 1 else "#cc6677" for _, ratio in shown])
    left.set(xscale="log", xlabel="time of the peer / ours", yticks=range(len(shown)))
    left.set_yticklabels([name for name, _ in shown], fontsize=6)
    left.axvline(1, color="black", linewidth=0.8)
    for name, sizes, seconds, fitted, claimed in CURVES:
        right.loglog(sizes, seconds, "o-", markersize=3, label=f"{name}: {fitted:.2f} (claimed {claimed})")
    right.set(xlabel="size", ylabel="seconds of processor time")
    right.set_ylim(top=30 * max(seconds.max() for _, _, seconds, _, _ in CURVES))
    right.legend(fontsize=7, loc="upper left")
    figure.savefig(path)


if __name__ == "__main__":
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    compilation()
    print(f"\n{'':52}{'ours, s':>10}  {'peer':28}{'peer, s':>10}{'ratio':>9}")
    for part in (hamming, transport, compression, matrices, tilings, graphs, lambda: bpe(megabytes)):
        part()
    picture(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent.parent / "docs" / "algorithms.svg")
