"""The decoding chapter on next-token laws of a real language model (counted from real text where the model is not installed), over its whole vocabulary."""

import numpy as np
import pytest
from scipy.stats import chisquare

from distributions import next_token_laws
from lawbook.chapters.decoding.bregman_top_k import bregman_cost, bregman_decode
from lawbook.chapters.decoding.lossless_anti_distillation import gumbel_agreement, lads_sample
from lawbook.chapters.decoding.multi_draft_acceptance import optimal_acceptance, verify_multi_draft
from lawbook.chapters.decoding.speculative_speedup import acceptance_rate, expected_tokens, speculative_sample

RARE = 5  # expected draws below which tokens are counted together


@pytest.fixture(scope="module")
def laws():
    """Ten next-token laws of different places; each place's own sharpened law is its target, the law itself the draft."""
    found, _ = next_token_laws()
    return found[np.linspace(1, len(found) - 1, 10).astype(int)]


def sharpened(law, temperature=0.7):
    log = np.log(np.maximum(law, 1e-300)) / temperature
    p = np.exp(log - log.max())
    return p / p.sum()


def matches(draws, law):
    """Probability of counts as far off as these under the law, tokens that are hardly expected counted together."""
    counts = np.bincount(draws, minlength=len(law)).astype(float)
    expected = len(draws) * law
    common = expected >= RARE
    counts, expected = np.append(counts[common], counts[~common].sum()), np.append(expected[common], expected[~common].sum())
    if expected[-1] < RARE:
        counts, expected = np.append(counts[:-2], counts[-2:].sum()), np.append(expected[:-2], expected[-2:].sum())
    return chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


def test_the_price_of_a_token_decides_how_many_are_kept(laws):
    for law in laws:
        kept = bregman_decode(law, alpha=1.5, penalty=0.02)
        k = int(np.count_nonzero(kept["probabilities"]))
        near = [bregman_cost(law, other, alpha=1.5, penalty=0.02) for other in range(max(k - 3, 1), k + 4)]
        assert bregman_cost(law, k, alpha=1.5, penalty=0.02) <= min(near) + 1e-12
        assert set(np.flatnonzero(kept["probabilities"])) == set(np.argsort(-law, kind="stable")[:k])


def test_speculation_keeps_the_target_law(laws):
    """One round after another from the same place: the first token follows the target, and as many are accepted as the overlap says."""
    law = laws[3]
    target, draft = sharpened(law), law
    rounds = [speculative_sample(lambda _: target, lambda _: draft, np.array([0]), gamma=1, seed=seed) for seed in range(4000)]
    first = np.array([int(found[0]) for found in rounds])
    assert matches(first, target) > 1e-4 and matches(first, draft) < 1e-4
    accepted = np.mean([len(found) for found in rounds])
    rate = acceptance_rate(target, draft)
    assert accepted == pytest.approx(expected_tokens(float(rate), 1), abs=5 * np.sqrt(rate * (1 - rate) / 4000) + 1e-9)


def test_several_drafts_are_accepted_more_often_and_keep_the_law(laws):
    for law in laws[:4]:
        target = sharpened(law)
        ceilings = [optimal_acceptance(target, law, drafts=drafts) for drafts in (1, 2, 4)]
        assert ceilings[0] == pytest.approx(float(acceptance_rate(target, law)), rel=1e-9) and ceilings == sorted(ceilings) and ceilings[-1] <= 1 + 1e-12
    target = sharpened(laws[2])
    drawn = np.array([verify_multi_draft(target, laws[2], drafts=2, seed=seed)["token"] for seed in range(4000)])
    assert matches(drawn, target) > 1e-4 and matches(drawn, laws[2]) < 1e-4


def test_shared_random_bits_lose_nothing(laws):
    law = laws[4]
    drawn = np.array([lads_sample(law, bucket, 0, 0, key=7) for bucket in range(4000)])
    assert matches(drawn, law) > 1e-4 and matches(drawn, sharpened(law)) < 1e-4
    other = sharpened(law)
    agreed = np.mean(drawn == np.array([lads_sample(other, bucket, 0, 0, key=7) for bucket in range(4000)]))
    exact = float(gumbel_agreement(law, other)["agreement"])
    assert agreed == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / 4000) + 1e-9)
