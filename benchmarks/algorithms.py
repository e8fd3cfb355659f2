"""Algorithms, sampling and mathematics beside their peers, one thread: medians of processor time on the same input, their ratio, what each reaches, and how time grows with size.

Peers that are missing have a row that says why. Usage: python benchmarks/algorithms.py [megabytes of text] [picture]
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

import _mathematics
import _sampling
import numpy as np
from _table import against, curve, header, peer, picture, row
from _timing import median_seconds
from rejection_kmeanspp import plain_kmeanspp

from lawbook.chapters.algorithms.bpe_greedy import bpe_apply, bpe_train
from lawbook.chapters.algorithms.class_ot_son import class_level_ot, class_ot, class_purity
from lawbook.chapters.algorithms.dataset_msc import compress_msc, compression_curve, kernel_entropy, overlap
from lawbook.chapters.algorithms.eim_matrix_limits import eim_logdet, eim_select
from lawbook.chapters.algorithms.fibonacci_hierarchy import hierarchy_positions, lengths, phrase_hits
from lawbook.chapters.algorithms.hamming_text import comparer, hamming_approx, hamming_distances, hamming_k_bounded, numbered
from lawbook.chapters.algorithms.log_proximity import best_proximity, proximity_distance
from lawbook.chapters.algorithms.rejection_kmeanspp import rejection_kmeanspp, remaining_cost
from lawbook.chapters.algorithms.rna_undesignable import motif_rivals
from lawbook.chapters.algorithms.rrt_star_radius import rrt_star
from lawbook.chapters.algorithms.tree_automata_lstar import learn_tree_automaton

FIRST_CALLS = """
import time
began = time.process_time()
from lawbook.chapters.{paper} import {name}
{call}
print(time.process_time() - began)
"""


def compilation():
    calls = {
        "algorithms.bpe_greedy": ("bpe_train", "bpe_train('abab', 1)"),
        "algorithms.hamming_text": (
            "hamming_distances, hamming_k_bounded",
            "import numpy as np; a = np.arange(40); hamming_distances(a, a, method='abrahamson'); hamming_k_bounded(a, a, 1)",
        ),
        "mathematics.log_bessel": ("log_bessel_i", "log_bessel_i(1.0, 1.0)"),
        "algorithms.class_ot_son": ("class_ot", "import numpy as np; class_ot(np.eye(4), row_labels=np.array([0, 0, 1, 1]), column_labels=np.array([0, 0, 1, 1]))"),
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
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    centres = 2 * rng.normal(size=(3, 2))
    x, y = centres[labels] + rng.normal(size=(60, 2)), centres[labels] + [1.0, 0.5] + rng.normal(size=(60, 2))
    cost = ((x[:, None] - y) ** 2).sum(2)
    cost /= cost.max()
    weights = np.full(60, 1 / 60)

    def quality(plan):
        """Purity, and the share of targets whose class sends them most."""
        sent = np.array([plan[labels == c].sum(0) for c in range(3)])
        return f"{class_purity(plan, labels, labels):.3f}, {(sent.argmax(0) == labels).mean():.3f}"

    ours, plain = median_seconds(class_ot, cost, row_labels=labels, column_labels=labels, strength=0.0)
    against("transport, 60 x 60", ours, "POT emd", "ot", lambda ot: ot.emd(weights, weights, cost), lambda plan: f"costs differ by {abs((plan * cost).sum() - plain['cost']):.1e}")
    class_ot(cost, row_labels=labels, column_labels=labels, iters=10)
    ours, fused = median_seconds(class_ot, cost, row_labels=labels, column_labels=labels, repeats=3)
    gap = abs(fused["cost"] - class_level_ot(cost, labels, labels)["cost"])
    for name in ("SinkhornLpl1", "SinkhornL1l2"):
        against(
            "transport of classes, 60 x 60",
            ours,
            f"POT {name}",
            "ot",
            lambda ot, name=name: getattr(ot.da, f"{name}Transport")(reg_e=0.05, reg_cl=0.1).fit(Xs=x, ys=labels, Xt=y).coupling_,
            lambda plan: f"purity, accuracy {quality(fused['plan'])} against {quality(plan)}, plain {quality(plain['plan'])}; {gap:.1e} from transport between classes",
        )


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
    against(
        "compression, 100 of 1000 structures",
        ours,
        "quests, the authors' msc",
        "quests.compression.fps",
        lambda fps: fps.msc(groups, np.array([importlib.import_module("quests.entropy").entropy(group, h=0.5) for group in groups]), 100, h=0.5),
        lambda indices: f"{np.sum(np.asarray(indices) == found['indices'])} of 100 choices the same",
        warm=True,
    )
    against(
        "compression, 100 of 1000 structures",
        ours,
        "apricot, facility location",
        "apricot",
        lambda apricot: apricot.FacilityLocationSelection(100).fit(np.array([group.mean(0) for group in groups])).ranking,
        lambda indices: f"{told(found['indices'])} against {told(indices)}",
        warm=True,
    )
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

    side = rng.normal(size=300)

    def combined():
        chosen = eim_select(coefficients, 12, 8)
        return chosen["weights"] @ np.linalg.solve(np.eye(300) - np.tensordot(coefficients[chosen["points"]], m, 1), side)

    def projected():
        """Galerkin's method on the span of the same eight solutions: it needs the matrices themselves, not solutions alone."""
        points = eim_select(coefficients, 12, 8)["points"]
        basis = np.linalg.qr(np.linalg.solve(np.eye(300) - np.tensordot(coefficients[points], m, 1), side).T)[0]
        small = np.eye(basis.shape[1]) - np.tensordot(coefficients, basis.T @ m @ basis, 1)
        return np.linalg.solve(small, basis.T @ side) @ basis.T

    exact = np.array([np.linalg.solve(np.eye(300) - np.tensordot(theta, m, 1), side) for theta in coefficients])
    ours, combination = median_seconds(combined, repeats=3)
    theirs, projection = median_seconds(projected, repeats=3)
    errors = [np.abs(u - exact).max() for u in (combination, projection)]
    row("201 linear systems of 300 x 300", ours, "intrusive reduced basis", theirs, f"largest error {errors[0]:.1e} against {errors[1]:.1e}, eight solutions each")


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

    def longest():
        """At each word the longest phrase of 8, 5, 3 or 2 words that is among the 500 most frequent of its length."""
        books = {}
        for n in (8, 5, 3, 2):
            seen = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
            books[n] = {phrase for phrase, times in seen.most_common(500) if times > 1}
        hit, i = dict.fromkeys(books, 0), 0
        while i < len(tokens):
            n = next((n for n, book in books.items() if tuple(tokens[i : i + n]) in book), 1)
            if n > 1:
                hit[n] += n
            i += n
        return [hit[n] / len(tokens) for n in (2, 3, 5, 8)]

    theirs, parsed = median_seconds(longest, repeats=1)
    row(
        "phrases of 200 000 words",
        ours,
        "greedy longest phrases",
        theirs,
        f"covered in all, tiles of 2 words alone {share[0]:.3f}, against {np.sum(parsed):.3f} by phrases of 2 to 8",
    )
    data = " ".join(tokens).encode()
    for name, pack in (("xz", lzma.compress), ("bzip2", bz2.compress), ("zlib", zlib.compress)):
        theirs, packed = median_seconds(pack, data, repeats=1)
        row("phrases of 200 000 words", ours, name, theirs, f"another task on the same text, for scale: packed to {len(packed) / len(data):.3f} of its size")
    numbers = [2**k for k in range(14, 21)]
    curve("tiles of a Fibonacci hierarchy", numbers, [median_seconds(hierarchy_positions, n, repeats=3)[0] for n in numbers], "W", 1.0)


def graphs():
    from sklearn.cluster import SpectralClustering
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    A = np.triu(rng.random((100, 100)) < np.where(labels[:, None] == labels, 0.3, 0.1), 1).astype(float)
    A = A + A.T

    def matrix(table):
        return np.array([[table[i][j] for j in range(100)] for i in range(100)])

    def apart(D, wanted):
        return f"relative difference {np.abs(D - wanted).max() / wanted.max():.1e}"

    ours, D = median_seconds(proximity_distance, A, "comm", 1.0, logarithmic=False)

    def communicability(table):
        H = matrix(table)
        return apart(D, (np.diag(H)[:, None] + np.diag(H) - 2 * H) / 2)

    against("communicability distances, 100 nodes", ours, "networkx", "networkx", lambda nx: nx.communicability_exp(nx.from_numpy_array(A)), communicability)
    t = 1e6  # resistances are the limit of t times forest distances
    ours, forest = median_seconds(proximity_distance, A, "forest", t, logarithmic=False)
    against(
        "resistances, 100 nodes",
        ours,
        "networkx",
        "networkx",
        lambda nx: nx.resistance_distance(nx.from_numpy_array(A)),
        lambda table: apart(2 * t * forest, matrix(table)),
    )
    ours, best = median_seconds(best_proximity, A, labels, repeats=1)
    theirs, found = median_seconds(lambda: SpectralClustering(2, affinity="precomputed", random_state=0).fit_predict(A), repeats=3)
    told = f"adjusted Rand {best['ari'][0]:.3f} ({best['kernel'][0]}) against {adjusted_rand_score(labels, found):.3f}"
    row("best of 96 proximities, 100 nodes", ours, "spectral clustering (one)", theirs, told)
    row("best of 96 proximities, 100 nodes", ours, "pygkernels", None, "not on the package index")


def seeding():
    from sklearn.cluster import kmeans_plusplus

    n, k = 500_000, 200
    rng = np.random.default_rng(0)
    data = 3 * rng.normal(size=(50, 16))[rng.integers(50, size=n)] + rng.normal(size=(n, 16))
    rejection_kmeanspp(data[:1000], 10)
    ours, found = median_seconds(rejection_kmeanspp, data, k, seed=0, repeats=3)
    for name, method in (("scikit-learn, greedy", lambda: kmeans_plusplus(data, k, random_state=0)[1]), ("plain k-means++", lambda: plain_kmeanspp(data, k, 0))):
        theirs, indices = median_seconds(method, repeats=1)
        costs = [remaining_cost(data, chosen) for chosen in (found["indices"], indices)]
        row("200 seeds of 500 000 points in 16 dimensions", ours, name, theirs, f"cost before Lloyd {costs[0]:.4g} against {costs[1]:.4g} (after it: rejection_kmeanspp.py)")
    sizes = [62_500 * 2**i for i in range(4)]
    curve("seeds by rejection, points", sizes, [median_seconds(rejection_kmeanspp, data[:n], k, seed=0, repeats=3)[0] for n in sizes], "n at most", 1.0)


def molecules():
    motif = "((*)(.(*)(*)))"
    ours, own = median_seconds(motif_rivals, motif, repeats=3)

    def told(other):
        verdicts = f"undesignable {own['undesignable']} against {other['undesignable']}"
        return f"{verdicts}; energies that are a function are asked for whole sequences, one by one, ours for the parts that matter"

    against("an RNA motif's verdict", ours, "the same by ViennaRNA's energies", "RNA", lambda RNA: motif_rivals(motif, energy=viennas(RNA)), told, repeats=1)
    row("an RNA motif's verdict", ours, "RNA-Undesign (C++)", None, "its authors' program is not on the package index")


def viennas(RNA):
    """ViennaRNA's energies of sequences in one structure, infinite where bases cannot pair."""
    pairs = {"CG", "GC", "GU", "UG", "AU", "UA"}

    def energies(texts, structure):
        stack, partner = [], []
        for i, symbol in enumerate(structure):
            if symbol == "(":
                stack.append(i)
            elif symbol == ")":
                partner.append((stack.pop(), i))
        return [RNA.eval_structure_simple(x, structure) if all(x[i] + x[j] in pairs for i, j in partner) else np.inf for x in texts]

    return energies


def planning():
    start, goal, corners = np.array([0.1, 0.5]), np.array([0.9, 0.5]), (np.array([0.4, 0.3]), np.array([0.6, 0.9]))
    best = 2 * np.hypot(0.3, 0.2) + 0.2 - 0.05  # around the lower corners, less the goal ball

    def planned(ompl, samples):
        from ompl import base, geometric, util

        space, bounds = base.RealVectorStateSpace(2), base.RealVectorBounds(2)
        bounds.setLow(0.0)
        bounds.setHigh(1.0)
        space.setBounds(bounds)
        setup = geometric.SimpleSetup(space)
        setup.setStateValidityChecker(lambda s: not (0.4 < s[0] < 0.6 and 0.3 < s[1] < 0.9))
        ends = space.allocState(), space.allocState()
        for state, at in zip(ends, (start, goal), strict=True):
            state[0], state[1] = at.tolist()
        setup.setStartAndGoalStates(*ends, 0.05)
        util.setLogLevel(util.LogLevel.LOG_NONE)
        util.RNG.setSeed(1)
        planner = geometric.RRTstar(setup.getSpaceInformation())
        planner.setRange(10.0)
        planner.setGoalBias(0.0)
        planner.setKNearest(False)
        planner.setRewireFactor(1.01)
        setup.setPlanner(planner)
        setup.setOptimizationObjective(base.PathLengthOptimizationObjective(setup.getSpaceInformation()))
        setup.solve(base.PlannerTerminationCondition(lambda: planner.numIterations() >= samples))
        return setup.getSolutionPath().length()

    for samples in (1000, 4000):
        for radius in ("classic", "new"):
            given = {"radius": radius, "optimal_cost": 1.0}
            ours, found = median_seconds(rrt_star, start, goal, np.concatenate(corners)[None], samples, 0, **given, repeats=3)
            against(
                f"RRT*, {samples} samples around a box, {radius} radius",
                ours,
                "OMPL, classic radius",
                "ompl",
                lambda ompl, samples=samples: planned(ompl, samples),
                lambda length, found=found: f"longer than the shortest by {100 * (found['cost'] / best - 1):.1f}% against {100 * (length / best - 1):.1f}%",
            )


def automata():
    rng = np.random.default_rng(0)
    for states in (50, 200):
        tables, final = {letter: rng.integers(states, size=states).tolist() for letter in "ab"}, np.flatnonzero(rng.random(states) < 0.5).tolist()

        def learnt(aalpy, states=states, tables=tables, final=final):
            target = aalpy.automata.Dfa.from_state_setup({q: (q in final, {letter: tables[letter][q] for letter in "ab"}) for q in range(states)})
            system = aalpy.SULs.AutomatonSUL(target)
            oracle = aalpy.oracles.PerfectKnowledgeEqOracle(["a", "b"], system, target)
            return aalpy.run_Lstar(["a", "b"], system, oracle, "dfa", print_level=0, return_data=True)

        ours, found = median_seconds(learn_tree_automaton, {"e": 0, "a": 1, "b": 1}, {"e": 0, **tables}, final, repeats=3)

        def told(answer, found=found):
            automaton, data = answer
            asked = (
                f"membership queries {found['membership_queries']} against {data['queries_learning']}, equivalence {found['equivalence_queries']} against {data['learning_rounds']}"
            )
            return f"{found['states']} states against {len(automaton.states)}, {asked}"

        against(f"a word automaton of {states} states, learnt", ours, "AALpy L*", "aalpy", learnt, told)
    row("tree automata, learnt", None, "none", None, "no package learns them")


if __name__ == "__main__":
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    compilation()
    header()
    parts = (hamming, transport, compression, matrices, tilings, graphs, seeding, molecules, planning, automata, lambda: bpe(megabytes))
    for part in (*parts, *_sampling.PARTS, *_mathematics.PARTS):
        part()
    print("\nNo peer is named for Ito chains, the block-11 law, Hurwitz dimensions, uniformity by omega and Bowen's formula: their trials hold them against exact laws.")
    picture(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent.parent / "docs" / "algorithms.svg")
