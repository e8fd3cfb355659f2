"""Deterministic bottom-up tree automata in plain Python: an alphabet {symbol: arity}, transitions {symbol: nested table of states}, accepting states,
and trees as nested tuples (symbol, child, ...)."""

import itertools
import json
from dataclasses import dataclass

import numpy as np

from ..contract.quantity import Text

CELLS = 1_000_000  # transitions of an automaton


@dataclass(frozen=True, kw_only=True)
class Finite(Text):
    """A finite object written in Python or as JSON, put into one form by `form`, which raises ValueError or TypeError for what it cannot read."""

    words: str
    form: object

    def _read(self, value, name):
        try:
            return self.form(json.loads(value) if isinstance(value, str) else value)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise self.refuse(value, name) from None

    def allowed(self):
        return self.words

    def outside(self):
        return [3, "seven", [], {"": -1}]

    def schema(self):
        return self._described({})


def demand(condition):
    if not condition:
        raise ValueError


def alphabet_form(value):
    demand(isinstance(value, dict) and all(isinstance(symbol, str) and symbol and type(k) is int and 0 <= k <= 4 for symbol, k in value.items()))
    demand(0 in value.values())
    return dict(value)


def transitions_form(value):
    tables = {symbol: np.asarray(table) for symbol, table in value.items()}
    demand(tables and all(isinstance(s, str) and t.dtype.kind == "i" and t.size and t.min() >= 0 for s, t in tables.items()))
    return {symbol: table.tolist() for symbol, table in tables.items()}


def tree_form(value):
    demand(isinstance(value, list | tuple) and len(value) and isinstance(value[0], str))
    return (value[0], *map(tree_form, value[1:]))


def number_of_states(alphabet, transitions, final):
    """0 where the parts do not make up one complete automaton."""
    if set(alphabet) != set(transitions):
        return 0
    tables = {symbol: np.asarray(table) for symbol, table in transitions.items()}
    n = max([len(table) for table in tables.values() if table.ndim] or [1 + max(int(table) for table in tables.values())])
    fits = all(tables[f].shape == (n,) * k and tables[f].max() < n for f, k in alphabet.items())
    return n if fits and max(final, default=0) < n and sum(n**k for k in alphabet.values()) <= CELLS else 0


def run_tree(tree, transitions):
    """State that a tree reaches."""
    table = transitions[tree[0]]
    for child in tree[1:]:
        table = table[run_tree(child, transitions)]
    return table


def tables_of(alphabet, n, target):
    """Nested tables of the states target(symbol, states)."""
    tables = {}
    for f, k in alphabet.items():
        cells = np.array([target(f, states) for states in itertools.product(range(n), repeat=k)])
        tables[f] = cells.reshape((n,) * k).tolist()
    return tables


def differing_tree(alphabet, transitions_a, final_a, transitions_b, final_b):
    """{equal, witness}: a tree of least height on which two automata differ, by the pairs of states that trees reach."""
    a, b = ({f: np.asarray(table) for f, table in tables.items()} for tables in (transitions_a, transitions_b))
    final_a, final_b, reached, new = set(final_a), set(final_b), {}, {}
    while new or not reached:
        old, reached, fresh = set(reached), {**reached, **new}, {}
        for f, k in alphabet.items():
            for pairs in itertools.product(reached, repeat=k):
                if (k and old.issuperset(pairs)) or (not k and old):
                    continue
                pair = int(a[f][tuple(p for p, _ in pairs)]), int(b[f][tuple(q for _, q in pairs)])
                if pair in reached or pair in fresh:
                    continue
                fresh[pair] = (f, *(reached[p] for p in pairs))
                if (pair[0] in final_a) != (pair[1] in final_b):
                    return {"equal": False, "witness": fresh[pair]}
        if not fresh:
            break
        new = fresh
    return {"equal": True, "witness": None}


def minimal_automaton(alphabet, transitions, final):
    """{states, transitions, final}: unreachable states dropped, the others merged by partition refinement."""
    tables, reached = {f: np.asarray(table) for f, table in transitions.items()}, np.zeros(0, int)
    while True:
        now = np.unique(np.concatenate([np.ravel(t[np.ix_(*[reached] * t.ndim)] if t.ndim else t) for t in tables.values()]))
        if len(now) == len(reached):
            break
        reached = now
    place = np.full(max([len(t) for t in tables.values() if t.ndim] + [reached.max() + 1]), -1)
    place[reached] = np.arange(len(reached))
    tables = {f: place[t[np.ix_(*[reached] * t.ndim)] if t.ndim else t] for f, t in tables.items()}
    classes = np.isin(reached, list(final)).astype(int)
    while True:
        number = len(np.unique(classes))
        sides = [np.moveaxis(classes[t], axis, 0).reshape(len(reached), -1) for t in tables.values() for axis in range(t.ndim)]
        signature = np.hstack([classes[:, None], *sides])
        _, first, classes = np.unique(signature, axis=0, return_index=True, return_inverse=True)
        classes = np.argsort(np.argsort(first))[classes.ravel()]
        if len(first) == number:
            break
    first = np.sort(first)
    merged = {f: classes[t[np.ix_(*[first] * t.ndim)] if t.ndim else t].tolist() for f, t in tables.items()}
    return {"states": len(first), "transitions": merged, "final": [i for i, q in enumerate(reached[first].tolist()) if q in set(final)]}


def random_tree(rng, alphabet, depth):
    """A uniform symbol at each node, and constants alone at `depth`."""
    symbols = list(alphabet) if depth else [f for f, k in alphabet.items() if not k]
    f = symbols[int(rng.random() * len(symbols))]
    return (f, *(random_tree(rng, alphabet, depth - 1) for _ in range(alphabet[f])))
