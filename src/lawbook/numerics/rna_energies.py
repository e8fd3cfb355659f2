"""RNA secondary structures in dot-bracket form and their energies by a compact form of the Turner 2004 rules: stacks, initiation, asymmetry, closure by AU or GU, branches,
and dangling ends on both sides of every branch and hairpin.

A layout is a structure within one outermost pair, where what is inside some pairs, written [], is left open. Sequences are rows of numbers of bases, or texts. Energies
are in tenths of kcal/mol for rows, and in kcal/mol for texts.
"""

import functools
from collections import Counter

import numpy as np

from ..contract import DomainError

BASES, PAIRS = "ACGU", ("CG", "GC", "GU", "UG", "AU", "UA")
# in tenths of kcal/mol: of a pair and the next one inside it, both read outwards; of the base 3' and 5' of a pair; of as many free positions
STACK = (
    (-24, -33, -21, -14, -21, -21),
    (-33, -34, -25, -15, -22, -24),
    (-21, -25, 13, -5, -14, -13),
    (-14, -15, -5, 3, -6, -10),
    (-21, -22, -14, -6, -11, -9),
    (-21, -24, -13, -10, -9, -13),
)
DANGLE3 = ((-11, -4, -13, -6), (-17, -8, -17, -12), (-7, -1, -7, -1), (-8, -5, -8, -6), (-7, -1, -7, -1), (-8, -5, -8, -6))
DANGLE5 = ((-5, -3, -2, -1), (-2, -3, 0, 0), (-3, -3, -4, -2), (-3, -1, -2, -2), (-3, -3, -4, -2), (-3, -1, -2, -2))
HAIRPIN = (None, None, None, 54, 56, 57, 54, 60, 55, 64, 65, 66, 67, 68, 69)
BULGE = (None, 38, 28, 32, 36, 40, 44, 46, 47, 48, 49, 50, 51, 52, 53)
INTERIOR = (None, None, 10, 10, 11, 20, 20, 21, 23, 24, 25, 26, 27, 28, 29)
ASYMMETRY, MOST_ASYMMETRY, BRANCHING, BRANCH, AU_END, AU_INTERIOR = 6, 30, 93, -9, 5, 7


def partners(structure, name="structure"):
    """Partner of each position, -1 where it is unpaired."""
    partner, stack = np.full(len(structure), -1), []
    for i, symbol in enumerate(structure):
        if symbol == "(":
            stack.append(i)
        elif symbol == ")":
            if not stack:
                raise DomainError(f"{name} must have balanced brackets; it was {structure[:80]!r}.")
            j = stack.pop()
            partner[i], partner[j] = j, i
        elif symbol != ".":
            raise DomainError(f"{name} must be made of ( ) and . (and (*) in a motif); character {i + 1} was {symbol!r}.")
    if stack:
        raise DomainError(f"{name} must have balanced brackets; it was {structure[:80]!r}.")
    return partner


def foldings(layout):
    """All layouts with the open pairs of this one, itself included where its hairpins have three free positions or more, as theirs do."""

    @functools.lru_cache(None)
    def between(i, j):
        if i > j:
            return [""]
        if layout[i] == "[":
            return ["[]" + rest for rest in between(i + 2, j)]
        found = ["." + rest for rest in between(i + 1, j)]
        for k in range(i + 1, j + 1):
            if layout[k] not in "[]":
                found += [f"({inside}){rest}" for inside in between(i + 1, k - 1) if len(inside) > 2 or "[" in inside for rest in between(k + 1, j)]
        return found

    return [f"({inside})" for inside in between(1, len(layout) - 2)]


def random_layout(rng, most):
    """A layout of up to three levels of loops with at most so many positions."""

    def loop(depth):
        pairs = ["[]" if depth == 0 or rng.random() < 0.5 else loop(depth - 1) for _ in range(int(rng.integers(0, 4)))]
        gaps = ["." * int(rng.integers(0, 4) if pairs else rng.integers(3, 5)) for _ in range(len(pairs) + 1)]
        return f"({gaps[0]}{''.join(pair + gap for pair, gap in zip(pairs, gaps[1:], strict=True))})"

    return next(layout for layout in iter(lambda: loop(2), None) if len(layout) <= most)


def closed(layout):
    """The structure with a hairpin in each open pair, written [] or (*)."""
    return layout.replace("[]", "(...)").replace("(*)", "(...)")


def choices(layout):
    """The free choices of a sequence on a layout: (positions, what bases they can take together)."""
    pairs, single = np.array([[BASES.index(base) for base in pair] for pair in PAIRS]), np.arange(4)[:, None]
    return [([i, j], pairs) if j > i else ([i], single) for i, j in enumerate(partners(layout.replace("[]", "()")).tolist()) if j > i or j < 0]


def completed(rows, layout, rng, known=()):
    """Sequences whose positions that are not known are drawn at random, pairs of the layout as pairs."""
    rows = rows.copy()
    for positions, bases in choices(layout):
        if positions[0] not in known:
            rows[:, positions] = bases[rng.integers(len(bases), size=len(rows))]
    return rows


def letters(rows, layout):
    """Sequences as texts, with AAA in the open pairs."""
    return ["".join(BASES[base] + "AAA" * (symbol == "[") for base, symbol in zip(row, layout, strict=True)) for row in rows.tolist()]


def random_sequences(layout, rng, size):
    """Texts of sequences whose bases can pair where the layout has pairs."""
    return letters(completed(np.zeros((size, len(layout)), int), layout, rng), layout)


def energy(sequence, structure):
    """Energy of one sequence in a structure within one outermost pair, loop after loop; infinite where bases cannot pair."""
    partner, total = partners(structure).tolist(), 0
    for i, j in enumerate(partner):
        if j < i:
            continue
        inside = [k for k in range(i + 1, j) if partner[k] > k and all(not p < k < partner[p] for p in range(i + 1, k))]
        around = [(j, i), *((k, partner[k]) for k in inside)]
        pairs = [sequence[p] + sequence[q] for p, q in around]
        if any(pair not in PAIRS for pair in pairs):
            return np.inf
        penalties = sum(pair not in ("CG", "GC") for pair in pairs)
        sides = [len(range(p + 1, q)) for p, q in zip([i, *(partner[k] for k in inside)], [*inside, j], strict=True)]
        hanging = sum(
            DANGLE3[PAIRS.index(pair)][BASES.index(sequence[q + 1])] + DANGLE5[PAIRS.index(pair)][BASES.index(sequence[p - 1])]
            for (p, q), pair in zip(around, pairs, strict=True)
            if len(inside) != 1
        )
        if not inside:
            total += HAIRPIN[sides[0]] + (AU_END * penalties if sides[0] == 3 else hanging)
        elif len(inside) > 1:
            total += BRANCHING + BRANCH * len(pairs) + AU_END * penalties + hanging
        elif sum(sides) < 2:
            total += (BULGE[1] if sum(sides) else 0) + STACK[PAIRS.index(pairs[0][::-1])][PAIRS.index(pairs[1][::-1])]
        elif 0 in sides:
            total += BULGE[sum(sides)] + AU_END * penalties
        else:
            total += INTERIOR[sum(sides)] + min(MOST_ASYMMETRY, ASYMMETRY * abs(sides[0] - sides[1])) + AU_INTERIOR * penalties
    return total / 10


def energies(sequences, structure):
    return np.array([energy(sequence, structure) for sequence in sequences])


def by_base(rows):
    """A table over pairs of bases from one over the six pairs; no pair, no energy."""
    full = np.zeros((4, 4, *np.shape(rows)[1:]), int)
    for pair, row in zip(PAIRS, rows, strict=True):
        full[BASES.index(pair[0]), BASES.index(pair[1])] = row
    return full


TABLES = {
    "impossible": (1 - by_base([1] * 6)) * 10**6,
    "stack": by_base([by_base(row) for row in STACK]),
    "end": by_base([0, 0, 1, 1, 1, 1]) * AU_END,
    "side": by_base([0, 0, 1, 1, 1, 1]) * AU_INTERIOR,
    "dangle3": by_base(DANGLE3),
    "dangle5": by_base(DANGLE5),
}


def energy_terms(layout):
    """The energy of a layout as a multiset of terms: (table, positions), and constants under the name "constant"."""
    partner, terms, constant = partners(layout.replace("[]", "()")).tolist(), Counter(), 0
    for i, j in enumerate(partner):
        if j < i or layout[i] == "[":
            continue
        inside, k = [], i + 1
        while k < j:
            inside += [(k, partner[k])] * (partner[k] > k)
            k = max(k, partner[k]) + 1
        free = j - i - 1 - sum(q - p + 1 for p, q in inside)
        terms["impossible", (i, j)] += 1
        ends = [(j, i), *inside]  # the pairs around the loop, read outwards from it
        if len(inside) == 1:
            (p, q), bulge = inside[0], i + 1 == inside[0][0] or inside[0][1] + 1 == j
            constant += 0 if free == 0 else BULGE[free] if bulge else INTERIOR[free] + min(MOST_ASYMMETRY, ASYMMETRY * abs(p - i - j + q))
            terms.update([("stack", (i, j, q, p))] if free < 2 else [("end" if bulge else "side", pair) for pair in ends])
            continue
        constant += BRANCHING + BRANCH * len(ends) if inside else HAIRPIN[free]
        terms.update([("end", pair) for pair in ends if inside or free == 3])
        if inside or free > 3:
            terms.update([("dangle3", (p, q, q + 1)) for p, q in ends] + [("dangle5", (p, q, p - 1)) for p, q in ends])
    terms["constant", ()] = constant
    return terms


def evaluated(terms, rows):
    """Energies of sequences, each term as often as it is counted."""
    total = np.full(len(rows), terms["constant", ()])
    for (name, positions), times in terms.items():
        if name != "constant" and times:
            total = total + times * TABLES[name][tuple(rows[:, p] for p in positions)]
    return total


def energy_gap(other, layout, energy=None):
    """The positions that matter to the energy of another layout above that of this one, with the same open pairs, and a function of rows that gives it.

    Terms that both have cancel. `energy`, a function like `energies`, takes the place of the compact rules; all positions matter to it, and the gap has its unit.
    """
    if energy is not None:
        return set(range(len(layout))), lambda rows: np.subtract(*(energy(letters(rows, layout), closed(y)) for y in (other, layout)), dtype=float)
    terms = energy_terms(other)
    terms.subtract(energy_terms(layout))
    return {p for (_, positions), times in terms.items() if times for p in positions}, functools.partial(evaluated, terms)
