"""Seeding by rejection against plain k-means++ and scikit-learn's greedy one: ratios of medians, costs of seeding and after Lloyd's iterations.

Usage: python benchmarks/rejection_kmeanspp.py [points]
"""

import sys
import time

import numpy as np

from lawbook.chapters.algorithms.rejection_kmeanspp import kmeans_beta, rejection_kmeanspp, remaining_cost, squared_distances


def plain_kmeanspp(data, clusters, seed):
    """The textbook's sampler: a pass over the data for every centre."""
    rng = np.random.default_rng(seed)
    indices = [int(rng.integers(len(data)))]
    nearest = np.full(len(data), np.inf)
    while len(indices) < clusters:
        np.minimum(nearest, squared_distances(data, data[indices[-1]]), out=nearest)
        weights = np.cumsum(nearest)
        indices.append(int(np.searchsorted(weights, rng.random() * weights[-1], side="right")))
    return np.array(indices)


def best_of(data, clusters, seedings, seed, subsample=5000):
    """The cheapest of several seedings by rejection, their costs estimated on a common subsample."""
    rows = np.random.default_rng(seed).choice(len(data), min(subsample, len(data)), replace=False)
    sets = [rejection_kmeanspp(data, clusters, seed=seed + i)["indices"] for i in range(seedings)]
    return min(sets, key=lambda s: remaining_cost(np.concatenate([data[s], data[rows]]), np.arange(clusters)))


def kmeans_seeding(points=500_000, dimensions=16, true_clusters=50, repeats=3):
    from sklearn.cluster import KMeans, kmeans_plusplus

    rng = np.random.default_rng(0)
    data = 3 * rng.normal(size=(true_clusters, dimensions))[rng.integers(true_clusters, size=points)] + rng.normal(size=(points, dimensions))
    for clusters in (50, 200):
        seeders = {
            "rejection": lambda seed, k=clusters: rejection_kmeanspp(data, k, seed=seed)["indices"],
            "best of ten by rejection": lambda seed, k=clusters: best_of(data, k, 10, 100 * seed),
            "plain k-means++": lambda seed, k=clusters: plain_kmeanspp(data, k, seed),
            "scikit-learn (greedy)": lambda seed, k=clusters: kmeans_plusplus(data, k, random_state=seed)[1],
        }
        seconds, costs, lloyd = {}, {}, {}
        for name, seeder in seeders.items():
            spent, sets = [], []
            for seed in range(repeats):
                began = time.perf_counter()
                sets.append(seeder(seed))
                spent.append(time.perf_counter() - began)
            seconds[name] = float(np.median(spent))
            costs[name] = np.mean([remaining_cost(data, s) for s in sets])
            rows = data[:: max(1, points // 50_000)]  # Lloyd's iterations on every tenth row: what is compared is where they end
            lloyd[name] = np.mean([KMeans(clusters, init=data[s], n_init=1, max_iter=50).fit(rows).inertia_ for s in sets]) * points / len(rows)
        found = rejection_kmeanspp(data, clusters, seed=0)
        print(f"n = {points}, d = {dimensions}, k = {clusters}: {found['trials']} candidates, beta = {kmeans_beta(data, found['indices']):.2f}")
        print(f"{'':28}{'seconds':>9}{'time / ours':>13}{'seeding cost':>14}{'after Lloyd':>13}")
        for name in seeders:
            print(f"{name:28}{seconds[name]:9.3f}{seconds[name] / seconds['rejection']:13.1f}{costs[name]:14.4g}{lloyd[name]:13.4g}")


if __name__ == "__main__":
    kmeans_seeding(*map(int, sys.argv[1:]))
