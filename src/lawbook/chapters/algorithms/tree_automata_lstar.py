"""Learning bottom-up tree automata from yes-no questions, exactly or from random trees, also up to the order of children."""

import functools
import itertools
import math

import numpy as np

from lawbook.contract import DomainError, Paper, count, flag, function, listing, optional, probability, record, seed, text
from lawbook.numerics import arrays
from lawbook.numerics.tree_automata import (
    CELLS,
    Finite,
    alphabet_form,
    differing_tree,
    minimal_automaton,
    number_of_states,
    random_tree,
    run_tree,
    tables_of,
    transitions_form,
    tree_form,
)
from lawbook.trials import Coverage, Guarantee

paper = Paper(
    __name__,
    title="A Categorical Framework for Learning Generalised Tree Automata",
    arxiv="2001.05786",
    tags=["active learning", "tree automata", "L*", "grammar inference", "query learning"],
    source="known",
    says="""Angluin's learner for regular languages extends to trees: keep one representative tree for each state found so far and contexts that tell them apart, ask whether
    trees belong to the language, and let counterexamples to the hypothesis add contexts. It ends with the minimal automaton after at most as many equivalence questions as that has
    states. Where the language does not care for the order of some children, the same learner works on trees up to that order, with fewer questions.""",
    notes="""The learner is the instance of the categorical framework for polynomial functors, in its usual concrete form (Drewes and Hoegberg). Each different tree is
    stored and asked once.""",
)


BOOLEAN = {"T": 0, "F": 0, "not": 1, "and": 2, "or": 2}
TABLES = {"T": 1, "F": 0, "not": [1, 0], "and": [[0, 0], [0, 1]], "or": [[0, 1], [1, 1]]}
NANDS = {**TABLES, "or": [[0, 1], [1, 0]]}
ALPHABET = Finite(words="a record symbol: arity, arities from 0 to 4 and at least one of them 0", form=alphabet_form, example=BOOLEAN)
TRANSITIONS = Finite(words="a record symbol: table of states, nested as deep as the arity", form=transitions_form, example=TABLES)
TREE = Finite(words="a tree (symbol, child, ...)", form=tree_form)
FINAL = listing(count(low=0), doc="accepting states", example=[1])
COMMUTATIVE = listing(text(), doc="symbols whose children may be exchanged")
AUTOMATON = {"states": count(), "transitions": TRANSITIONS, "final": FINAL}
LEARNED = record(**AUTOMATON, membership_queries=count(doc="different trees asked"), equivalence_queries=count())
WHOLE = {"transitions and final must fit alphabet: one state for each combination of states, all below their number": number_of_states}


def learn(alphabet, membership, equivalence, commutative=(), *, add_context=True, close_again=True, limit=math.inf):
    """The learner, with the two steps that negative controls leave out, stopped after `limit` equivalence queries."""
    trees, keys, numbers, asked, rows = [], [], {}, {}, {}  # trees are numbered: equal trees, up to exchanges of children, have one number
    representatives, contexts = [], [()]  # a context is what lies above its hole, from there to the root

    def tree(symbol, children):
        key = (symbol, *(sorted(children) if symbol in commutative else children))
        if key not in numbers:
            numbers[key] = len(trees)
            keys.append(key)
            trees.append((symbol, *(trees[child] for child in key[1:])))
        return numbers[key]

    def member(number):
        if number not in asked:
            asked[number] = bool(membership(trees[number]))
        return asked[number]

    def plug(context, number):
        for symbol, left, right in context:
            number = tree(symbol, (*left, number, *right))
        return number

    def row(number):
        known = rows.setdefault(number, [])
        known.extend(member(plug(context, number)) for context in contexts[len(known) :])
        return tuple(known)

    def close():
        grown = True
        while grown:
            grown, states = False, {row(s): i for i, s in enumerate(representatives)}
            for f, k in alphabet.items():
                for children in itertools.product(list(representatives), repeat=k):
                    new = row(tree(f, children))
                    if new not in states:
                        states[new], grown = len(representatives), True
                        representatives.append(tree(f, children))
            if sum(len(representatives) ** k for k in alphabet.values()) > CELLS:
                raise DomainError(f"membership needs an automaton of more than {len(representatives)} states, too many for arities up to {max(alphabet.values())}.")

    def of_tuple(z):
        if alphabet.get(z[0]) != len(z) - 1:
            raise DomainError(f"equivalence must give a tree over alphabet; it gave one with {len(z) - 1} children below {z[0]!r:.40}.")
        return tree(z[0], tuple(map(of_tuple, z[1:])))

    def first_new(number, known):
        """(tree, context) of a subtree over representatives that is none itself."""
        symbol, *children = keys[number]
        for i, child in enumerate(children):
            if child not in known:
                inner, context = first_new(child, known)
                return inner, (*context, (symbol, tuple(children[:i]), tuple(children[i + 1 :])))
        return number, ()

    queries = 0
    while True:
        if close_again or not queries:
            close()
        states = {row(s): i for i, s in reversed(list(enumerate(representatives)))}
        n = len(representatives)
        found = {
            "states": n,
            "transitions": tables_of(alphabet, n, lambda f, q, states=states: states.get(row(tree(f, tuple(representatives[i] for i in q))), 0)),
            "final": [i for i, s in enumerate(representatives) if member(s)],
        }
        witness, queries = equivalence(found), queries + 1
        if witness is None or queries >= limit:
            return {**found, "membership_queries": len(asked), "equivalence_queries": queries}
        z, known = of_tuple(witness), set(representatives)
        while True:
            if z in known:
                if not close_again:
                    break
                raise DomainError(f"equivalence must give a tree on which membership and the hypothesis differ; on {str(witness)[:120]} they agree.")
            inner, context = first_new(z, known)
            stand_in = representatives[states.get(row(inner), 0)]
            if member(plug(context, stand_in)) != member(z):
                if add_context:
                    contexts.append(context)
                break
            z = plug(context, stand_in)


def sample_automaton(rng, most=5):
    alphabet, n = {"a": 0, "b": 0, "g": 1, "f": 2}, int(rng.integers(1, most + 1))
    transitions = {f: rng.integers(n, size=(n,) * k).tolist() for f, k in alphabet.items()}
    return {"alphabet": alphabet, "transitions": transitions, "final": np.flatnonzero(rng.random(n) < 0.5).tolist()}


def sample_two(rng):
    one, other = sample_automaton(rng), sample_automaton(rng)
    return {"alphabet": one["alphabet"], **{f"{key}_{which}": a[key] for which, a in (("a", one), ("b", other)) for key in ("transitions", "final")}}


@paper.algorithm(
    r"\delta_a(t) \in F_a \not\Leftrightarrow \delta_b(t) \in F_b",
    requires={
        "transitions_a and final_a must fit alphabet": lambda alphabet, transitions_a, final_a: number_of_states(alphabet, transitions_a, final_a) > 0,
        "transitions_b and final_b must fit alphabet": lambda alphabet, transitions_b, final_b: number_of_states(alphabet, transitions_b, final_b) > 0,
    },
    sample=sample_two,
)
def equivalence_witness(
    alphabet: ALPHABET,
    transitions_a: TRANSITIONS,
    final_a: FINAL,
    transitions_b: Finite(words=TRANSITIONS.words, form=transitions_form, example=NANDS),
    final_b: FINAL,
) -> record(equal=flag(), witness=optional(TREE)):
    """Whether two automata accept the same trees, and a tree of least height on which they differ."""
    return differing_tree(alphabet, transitions_a, final_a, transitions_b, final_b)


@paper.algorithm(r"p \sim q \iff \forall c:\ \delta(c[p]) \in F \Leftrightarrow \delta(c[q]) \in F", requires=WHOLE, sample=sample_automaton, gives={"states": 2})
def minimize_tree_automaton(alphabet: ALPHABET, transitions: TRANSITIONS, final: FINAL) -> record(**AUTOMATON):
    """The minimal automaton of the same language: unreachable states dropped, the others merged by partition refinement, numbered by their smallest members."""
    return minimal_automaton(alphabet, transitions, final)


@paper.algorithm(
    r"\text{rows } (c[t] \in L)_{c \in E};\quad \#\text{equivalence queries} \le n",
    requires={**WHOLE, "commutative must name symbols of alphabet": lambda commutative, alphabet: set(commutative) <= set(alphabet)},
    sample=sample_automaton,
    gives={"states": 2, "membership_queries": 12, "equivalence_queries": 1},
)
def learn_tree_automaton(alphabet: ALPHABET, transitions: TRANSITIONS, final: FINAL, *, commutative: COMMUTATIVE = ()) -> LEARNED:
    """The minimal automaton, learnt from the given one as a black box that answers membership and equivalence queries, and what that took."""
    return learnt(alphabet, transitions, final, commutative)


def learnt(alphabet, transitions, final, commutative=(), **steps):
    smallest = minimize_tree_automaton(alphabet, transitions, final)
    for f in commutative:
        table = np.asarray(smallest["transitions"][f])
        if any((table != np.swapaxes(table, 0, axis)).any() for axis in range(1, table.ndim)):
            raise DomainError(f"commutative must name symbols whose children the language lets be exchanged; exchanging those of {f} matters.")
    accepting = set(final)
    return learn(
        alphabet,
        lambda z: run_tree(z, transitions) in accepting,
        lambda h: equivalence_witness(alphabet, h["transitions"], h["final"], transitions, final)["witness"],
        commutative,
        **steps,
    )


THREES = {"a": 1, "b": 0, "f": [[0, 1, 2], [1, 2, 0], [2, 0, 1]]}


def leaves_a_by_three(tree):
    """Whether the number of leaves a is a multiple of 3."""
    return run_tree(tree, THREES) == 0


def counterexample_by_three(hypothesis):
    return equivalence_witness({"a": 0, "b": 0, "f": 2}, hypothesis["transitions"], hypothesis["final"], THREES, [0])["witness"]


@paper.algorithm(
    r"\text{rows } (c[t] \in L)_{c \in E};\quad \#\text{equivalence queries} \le n",
    requires={"commutative must name symbols of alphabet": lambda commutative, alphabet: set(commutative) <= set(alphabet)},
    gives={"states": 3, "membership_queries": 19, "equivalence_queries": 2},
)
def learn_from_oracle(
    alphabet: Finite(words=ALPHABET.words, form=alphabet_form, example={"a": 0, "b": 0, "f": 2}),
    membership: function("tree -> whether it belongs to the language", example=leaves_a_by_three),
    equivalence: function("{states, transitions, final} -> a tree on which the hypothesis errs, or None", example=counterexample_by_three),
    *,
    commutative: COMMUTATIVE = (),
) -> LEARNED:
    """The minimal automaton of a regular tree language that two functions answer for."""
    return learn(alphabet, membership, equivalence, commutative)


@paper.law(r"m_i = \left\lceil \frac{1}{\varepsilon}\left(\ln\frac{1}{\delta} + i \ln 2\right) \right\rceil", closed_form=True, gives=60)
def pac_samples(
    epsilon: probability(above=True, typical=(0.01, 0.5), doc="error that is tolerated", example=0.05),
    delta: probability(above=True, typical=(0.001, 0.5), doc="chance of a larger error", example=0.1),
    query: count(typical=(1, 50), doc="i, from 1", example=1),
) -> count():
    """Random trees that stand in for the i-th equivalence query, so that all of them together err with probability at most delta."""
    xp, e, d, i = arrays(epsilon, delta, query)
    return xp.ceil((i * math.log(2) - xp.log(d)) / e)


def mean_size(alphabet, depth):
    growth = sum(alphabet.values()) / len(alphabet)
    return sum(min(growth, 1e9) ** level for level in range(min(depth, 300) + 1))


@paper.algorithm(
    r"\Pr[\text{error} \le \varepsilon] \ge 1 - \delta",
    requires={**WHOLE, "depth must keep trees small: their mean size at most 1000": lambda alphabet, depth: mean_size(alphabet, depth) <= 1000},
    sample=lambda rng: {**sample_automaton(rng), "epsilon": rng.uniform(0.02, 0.5), "delta": rng.uniform(0.01, 0.5), "depth": int(rng.integers(1, 9))},
)
def learn_from_samples(
    alphabet: ALPHABET,
    transitions: TRANSITIONS,
    final: FINAL,
    epsilon: probability(low=1e-3, typical=(0.02, 0.5), example=0.05),
    delta: probability(low=1e-9, typical=(0.01, 0.5), example=0.1),
    depth: count(typical=(1, 8), high=300, doc="level at which only constants grow", example=6),
    seed: seed() = 0,
) -> record(**AUTOMATON, error=probability(doc="share of 10000 fresh trees that are classified wrongly")):
    """An automaton learnt with random trees (a uniform symbol at each node) in the place of equivalence queries."""
    return learnt_from_samples(alphabet, transitions, final, epsilon, delta, depth, seed)


def learnt_from_samples(alphabet, transitions, final, epsilon, delta, depth, seed=0, fresh=10_000, schedule=pac_samples):
    rng, accepting, queries = np.random.default_rng(seed), set(final), itertools.count(1)

    def wrong(hypothesis, z):
        return (run_tree(z, hypothesis["transitions"]) in hypothesis["final"]) != (run_tree(z, transitions) in accepting)

    def equivalence(hypothesis):
        drawn = (random_tree(rng, alphabet, depth) for _ in range(int(schedule(epsilon, delta, next(queries)))))
        return next((z for z in drawn if wrong(hypothesis, z)), None)

    found = learn(alphabet, lambda z: run_tree(z, transitions) in accepting, equivalence)
    error = float(np.mean([wrong(found, random_tree(rng, alphabet, depth)) for _ in range(fresh)]))
    return {**{key: found[key] for key in AUTOMATON}, "error": error}


@paper.trial(
    Guarantee(),
    of=[learn_tree_automaton, minimize_tree_automaton, equivalence_witness],
    claim=learnt,
    controls={"no context from a counterexample": functools.partial(learnt, add_context=False), "closed only once": functools.partial(learnt, close_again=False)},
    quick=40,
    full=1000,
)
def exact_learning(draw, claim):
    """What is learnt is minimal, agrees on random trees, and took at most as many equivalence queries as states; witnesses are true, and missing only where trees agree."""
    target, other = sample_automaton(draw.rng, most=8), sample_automaton(draw.rng, most=2)
    alphabet, smallest = target["alphabet"], minimize_tree_automaton(**target)
    n = smallest["states"]
    found = claim(**target, limit=n + 1)
    drawn, wrong = [random_tree(draw.rng, alphabet, 6) for _ in range(60)], 0
    for one, two in ((found, target), (smallest, target), (target, other)):
        told = equivalence_witness(alphabet, one["transitions"], one["final"], two["transitions"], two["final"])
        differ = [(run_tree(z, one["transitions"]) in one["final"]) != (run_tree(z, two["transitions"]) in two["final"]) for z in [*drawn, told["witness"] or drawn[0]]]
        wrong += (any(differ) if told["equal"] else not differ[-1]) + (two is target and any(differ))
    return np.array([found["equivalence_queries"], found["states"], wrong], float), np.array([n, n, 0.0]), {"queries": found["membership_queries"]}


def blind_to_exchange(alphabet, membership, equivalence, *, commutative):
    return learn_from_oracle(alphabet, membership, equivalence)


@paper.trial(Guarantee(), of=[learn_from_oracle, learn_tree_automaton], controls={"trees told apart by order": blind_to_exchange}, quick=15, full=300)
def unordered_trees(draw, claim):
    """Where children may be exchanged, learning up to their order finds the same language with fewer membership queries."""
    ordered = {"states": 1}
    while ordered["states"] == 1:
        alphabet, tables, final = sample_automaton(draw.rng, most=6).values()
        tables = {f: np.maximum(table, np.transpose(table)).tolist() for f, table in tables.items()}
        ordered = learn_tree_automaton(alphabet, tables, final)

    def compared(hypothesis):
        return equivalence_witness(alphabet, hypothesis["transitions"], hypothesis["final"], tables, final)["witness"]

    found = claim(alphabet, lambda z: run_tree(z, tables) in final, compared, commutative=["f"])
    return compared(found) is None and found["states"] == ordered["states"] and found["membership_queries"] < ordered["membership_queries"]


def one_tree(epsilon, delta, query):
    return 1.0


@paper.trial(Coverage(at_most=0.1, detect=0.35), of=[pac_samples, learn_from_samples], controls={"one tree a query": one_tree}, quick=100, full=500)
def probably_approximately_correct(draw, claim):
    """With error .05 and confidence .9 asked for, the error on fresh trees exceeds .05 in at most a tenth of the runs."""
    target = sample_automaton(draw.rng, most=8)
    return learnt_from_samples(**target, epsilon=0.05, delta=0.1, depth=6, seed=draw.integer(0, 10**6), fresh=1000, schedule=claim)["error"] > 0.05
