"""A sequence of symbols in which all occurrences of a pair are replaced by a new symbol, at a cost in proportion to their number. Compiled by numba on first use.

A token occupies as many cells as it has original symbols. Its first cell holds its symbol, its first and last cell its span, so that both neighbours are found without
links; cells inside a token hold INSIDE, cells between pieces GAP. Each pair has a chain of the cells where it came up. Entries of a chain may be out of date, which the
cells tell; a pair that has left a cell never comes back to it, since symbols only grow. So there are at most two entries for each cell.
"""

import numpy as np

from .kernels import compiled

INSIDE, GAP = -1, -2
BLOCK = 1 << 22  # characters that are split at a time


@compiled
def slot_of(slots, left, right, a, b):
    """Where the pair (a, b) is in the hash table, or the free slot where it belongs."""
    mask = np.uint64(len(slots) - 1)
    mixed = (np.uint64(a) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F))
    place = (mixed ^ (mixed >> np.uint64(29))) & mask
    while slots[place] >= 0 and (left[slots[place]] != a or right[slots[place]] != b):
        place = (place + np.uint64(1)) & mask
    return place


@compiled
def rehash(slots, left, right, known):
    for pair in range(known):
        slots[slot_of(slots, left, right, left[pair], right[pair])] = pair


@compiled
def pair_of(state, slots, left, right, a, b):
    """The number of the pair (a, b), which gets one where it is new."""
    place = slot_of(slots, left, right, a, b)
    if slots[place] < 0:
        slots[place] = state[0]
        left[state[0]], right[state[0]] = a, b
        state[0] += 1
    return slots[place]


@compiled
def enter(state, cells, links, heads, tails, pair, cell):
    """Append a cell to the chain of a pair."""
    entry = state[2]
    if entry >= 0:
        state[2] = links[entry]
    else:
        entry = state[1]
        state[1] += 1
    cells[entry], links[entry] = cell, -1
    if heads[pair] < 0:
        heads[pair] = entry
    else:
        links[tails[pair]] = entry
    tails[pair] = entry


@compiled
def enter_all(start, stop, state, symbols, weights, slots, left, right, counts, heads, tails, cells, links):
    """Enter the pairs at cells start..stop-1 while the table has room; the cell where it ran out. A run of k equal symbols counts k // 2 times."""
    run, weighted = 0, len(weights) > 1
    if start > 0 and symbols[start - 1] == symbols[start]:
        back = start
        while back > 0 and symbols[back - 1] == symbols[start]:
            back -= 1
        run = start - back
    for cell in range(start, stop):
        if state[0] + 1 >= len(left):
            return cell
        a, b = symbols[cell], symbols[cell + 1]
        if a >= 0 and b >= 0:
            pair = pair_of(state, slots, left, right, a, b)
            if a != b or run % 2 == 0:
                counts[pair] += weights[cell] if weighted else 1
            enter(state, cells, links, heads, tails, pair, cell)
        run = run + 1 if a == b else 0
    return stop


@compiled
def replace(pair, c, state, symbols, spans, weights, slots, left, right, counts, heads, tails, cells, links):
    """Replace the occurrences of a pair by c, from left to right."""
    a, b = left[pair], right[pair]
    weighted = len(weights) > 1
    size, entry, ordered, before = 0, heads[pair], True, -1
    while entry >= 0:
        size += 1
        ordered &= cells[entry] > before
        before, entry = cells[entry], links[entry]
    found = np.empty(size, np.int32)
    entry = heads[pair]
    for i in range(size):
        found[i], entry = cells[entry], links[entry]
    if size:
        links[tails[pair]], state[2] = state[2], heads[pair]
    heads[pair] = tails[pair] = -1
    if not ordered:
        found.sort()
    last, last_run = np.int64(-1), 0  # the c written last and the run of c that it ends
    for p in found:
        q = p + spans[p]
        if symbols[p] != a or symbols[q] != b:
            continue
        x, y, w = p - spans[p - 1], q + spans[q], weights[p] if weighted else 1
        sx, sy = symbols[x], symbols[y]
        if sx >= 0:
            run, back = 1, x
            while sx == a and symbols[back] == a:
                run, back = run + 1, back - spans[back - 1]
            if sx != a or run % 2 == 0:
                counts[pair_of(state, slots, left, right, sx, a)] -= w
        if sy >= 0 and not (a == b == sy):
            run, ahead = 1, y
            while sy == b and symbols[ahead] == b:
                run, ahead = run + 1, ahead + spans[ahead]
            if sy != b or run % 2 == 0:
                counts[pair_of(state, slots, left, right, b, sy)] -= w
        symbols[p], symbols[q] = c, INSIDE
        spans[p] = spans[y - 1] = y - p
        run_left = run_right = 0
        if sx == c and x == last:
            run_left = last_run
        elif sx == c:
            back = x
            while symbols[back] == c:
                run_left, back = run_left + 1, back - spans[back - 1]
        ahead = y
        while symbols[ahead] == c:
            run_right, ahead = run_right + 1, ahead + spans[ahead]
        last, last_run = p, run_left + 1
        if sx >= 0:
            new = pair_of(state, slots, left, right, sx, c)
            enter(state, cells, links, heads, tails, new, x)
            counts[new] += w if sx != c else 0
        if sy >= 0:
            new = pair_of(state, slots, left, right, c, sy)
            enter(state, cells, links, heads, tails, new, p)
            counts[new] += w if sy != c else 0
        if run_left + run_right:
            counts[pair_of(state, slots, left, right, c, c)] += w * ((run_left + run_right + 1) // 2 - run_left // 2 - run_right // 2)
    counts[pair] = 0


class SymbolPairs:
    """The pairs of neighbouring symbols with their counts (of occurrences that do not overlap), kept up to date while pairs are replaced.

    `symbols` are whole numbers of at least 0, with a GAP at both ends and between pieces; `weights` say how often each cell counts (once where there are none).
    """

    def __init__(self, symbols, weights=None):
        self.symbols = np.ascontiguousarray(symbols, np.int32)
        size = len(self.symbols)
        self.spans = np.ones(size, np.int32)
        self.weights = np.ones(1, np.int64) if weights is None else np.ascontiguousarray(weights, np.int64)
        self.state = np.array([0, 0, -1])  # pairs, entries in use at some time, first free entry
        self.cells, self.links = np.empty((2, 2 * size), np.int32)  # memory that is never touched is never taken
        self.slots = np.full(1 << 12, -1, np.int32)
        self.left, self.right, self.heads, self.tails = np.full((4, 0), -1, np.int32)
        self.counts = np.zeros(0, np.int64)
        self._make_room(0)
        cell = 0
        while cell < size - 1:
            cell = enter_all(cell, size - 1, self.state, self.symbols, self.weights, self.slots, self.left, self.right, self.counts, self.heads, self.tails, self.cells, self.links)
            if cell < size - 1:
                self._make_room(self.known)

    @property
    def known(self):
        return int(self.state[0])

    def number(self, a, b):
        """The number of a pair, -1 where it never came up."""
        return int(self.slots[slot_of(self.slots, self.left, self.right, a, b)])

    def replace(self, pair, c, symbols):
        """Replace a pair by c, one of `symbols` numbers of symbols. Returns the pairs whose counts may have grown: all of them have c in them."""
        before = self.known
        self._make_room(min(2 * int(self.counts[pair]), 2 * symbols))
        replace(pair, c, self.state, self.symbols, self.spans, self.weights, self.slots, self.left, self.right, self.counts, self.heads, self.tails, self.cells, self.links)
        new = np.arange(before, self.known)
        return new if c == symbols - 1 else np.append(np.flatnonzero((self.left[:before] == c) | (self.right[:before] == c)), new)

    def _make_room(self, more):
        wanted = self.known + more + 2
        if wanted <= len(self.left):
            return
        while len(self.slots) < 2 * wanted:
            self.slots = np.full(2 * len(self.slots), -1, np.int32)
        longer = len(self.slots) // 2 - len(self.left)
        self.left, self.right, self.heads, self.tails = (np.append(v, np.full(longer, -1, np.int32)) for v in (self.left, self.right, self.heads, self.tails))
        self.counts = np.append(self.counts, np.zeros(longer, np.int64))
        rehash(self.slots, self.left, self.right, self.known)


def pieces(text):
    """The text's pieces between white space, a list for each block of text."""
    rest = ""
    for start in range(0, len(text), BLOCK):
        block = rest + text[start : start + BLOCK]
        parts = block.split()
        rest = parts.pop() if parts and not block[-1].isspace() else ""
        yield parts
    yield [rest] if rest else []


def encoded(text):
    """The characters of a text as numbers in the order of their code points, and the characters."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    present = np.zeros(codes.max(initial=0) + 1, bool)
    present[codes] = True
    alphabet = np.flatnonzero(present)
    return (np.cumsum(present, dtype=np.int32) - 1)[codes], [chr(code) for code in alphabet]
