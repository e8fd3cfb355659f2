"""Paper, Result and Finding: what a paper's file declares.

    paper = Paper(__name__, title=..., arxiv=..., tags=[...], source="known", says="...")

    @paper.law(r"L = E + A N^{-\\alpha}", observes="loss")
    def loss(params: positive("params", example=7e9)) -> real("nats"):
        '''Loss of a model with `params` parameters.'''

    @paper.trial(Identity(rtol=1e-9), of=[loss], controls={"no floor": wrong}, quick=100, full=10_000)
    def by_another_route(draw, loss):
        ...
        return computed, loss(...)

The decorators hand back the function itself: called directly it computes and nothing else.
"""

import inspect
import sys
from dataclasses import dataclass, field
from functools import partialmethod
from textwrap import dedent
from typing import Any, ClassVar

from . import catalogue
from .errors import DomainError, UnknownName
from .quantity import Array, CannotDraw, Either, Function, Number, Quantity, Record, Table, fit_sizes, optional
from .shown import Shown

KINDS = ("law", "bound", "limit", "algorithm", "model", "measure")
SOURCES = {
    "paper": "formulas from the paper's text",
    "code": "formulas from the authors' code",
    "known": "well-known formulas, checked here",
    "derived": "derived here from what the paper states",
    "none": "the paper has no formula; the measure is ours",
}


class Part:
    """What is pickled by its name where the book has it, so that a worker takes its own, and whole where not (a paper outside the book, a changed copy)."""

    paper: Any
    name: str
    shelf: ClassVar[str]

    def __reduce_ex__(self, protocol):
        if getattr(self.paper, self.shelf).get(self.name) is self and _in_book(self.paper):
            return _from_book, (self.paper.slug, self.shelf, self.name)
        return super().__reduce_ex__(protocol)


def _in_book(paper):
    module, _ = catalogue.files().get(paper.slug, (None, None))
    return module == paper.module and getattr(sys.modules.get(module), "paper", None) is paper


def _from_book(slug, shelf, name):
    return getattr(catalogue.paper(slug), shelf)[name]


@dataclass(frozen=True)
class Result(Part, Shown):
    """One callable of a paper with everything that is known about it."""

    shelf = "results"
    paper: "Paper"
    name: str
    kind: str
    function: Any
    statement: str  # LaTeX
    arguments: dict[str, Quantity]
    defaults: dict[str, Any]  # of the arguments that have one
    returns: Quantity
    assumptions: tuple[str, ...] = ()
    requires: dict[str, Any] = field(default_factory=dict)  # sentence -> condition on the arguments it names
    closed_form: bool = False  # runs on NumPy, JAX and torch arrays alike, and broadcasts over its numbers
    observes: str | None = None  # the column of a table that a law predicts
    gives: Any = None  # the value of the example, where it is published or known
    sample: Any = None  # rng -> arguments, where independent draws of the quantities would miss the domain
    published: dict[str, dict] = field(default_factory=dict)  # name -> fitted arguments of a law as others published them, held against a fit
    derived: dict[str, Any] = field(default_factory=dict)  # what follows from fitted arguments: name -> function of them that broadcasts
    fitter: Any = None  # (calls, observed, huber_delta=, seed=) -> fitted arguments, for a law that fits itself better than the general solvers do

    @property
    def id(self):
        return f"{self.paper.slug}.{self.name}"

    @property
    def summary(self):
        return _first_paragraph(self.function.__doc__ or "")

    def bind(self, given):
        """Validated arguments, defaults filled in; DomainError and UnknownName say what is wrong."""
        for name in given:
            if name not in self.arguments:
                raise UnknownName(f"argument of {self.id}", name, self.arguments)
        missing = [name for name in self.arguments if name not in given and name not in self.defaults]
        if missing:
            first = self.arguments[missing[0]]
            raise DomainError(f"{self.id} needs {', '.join(missing)}; {missing[0]} must be {first.allowed()}.")
        bound = {name: q.read(given[name], name) if name in given else self.defaults[name] for name, q in self.arguments.items()}
        sizes = self._sizes(bound)
        for name, quantity in self.arguments.items():
            fit_sizes(bound[name], quantity, name, sizes)
        for sentence, condition in self.requires.items():
            names = list(inspect.signature(condition).parameters)
            if not condition(*(bound[name] for name in names)):
                scalars = [f"{name} was {bound[name]}" for name in names if isinstance(bound[name], int | float | str)]
                raise DomainError(sentence + (f"; {', '.join(scalars)}." if scalars else "."))
        return bound

    def _sizes(self, bound):
        return {name: v for name, v in bound.items() if isinstance(self.arguments[name], Number) and isinstance(v, int)}

    def __call__(self, **given):
        """The answer for validated arguments."""
        return self.function(**self.bind(given))

    def example(self):
        """Arguments that show the result: the examples of the required ones."""
        return {name: q.example for name, q in self.arguments.items() if q.example is not None and (name not in self.defaults or q.example != self.defaults[name])}

    def draw(self, rng, tries=200):
        """Random arguments inside the domain; CannotDraw where one of them is a function."""
        for _ in range(tries):
            if self.sample is not None:
                given = self.sample(rng)
            else:
                given, sizes = {}, {}
                for name, quantity in sorted(self.arguments.items(), key=lambda item: not isinstance(item[1], Number)):
                    if isinstance(quantity, Function | Either) and name in self.defaults and _needs_python(quantity):
                        continue
                    if quantity.optional and rng.uniform() < 0.5:
                        continue
                    given[name] = quantity.draw(rng, sizes)
                    if isinstance(quantity, Number) and isinstance(given[name], int):
                        sizes[name] = given[name]
            try:
                self.bind(given)
                return given
            except DomainError:
                continue
        raise CannotDraw(f"{self.id}: no random arguments inside its domain in {tries} tries; give the result a `sample`")

    def cautions(self, bound):
        """Sentences about arguments outside the range where the paper supports the claim."""
        said = []
        for name, quantity in self.arguments.items():
            if isinstance(quantity, Number) and isinstance(bound[name], int | float) and not quantity.supported[0] <= bound[name] <= quantity.supported[1]:
                low, high = quantity.supported
                said.append(f"{name} = {bound[name]:.6g} lies outside [{low:.6g}, {high:.6g}], where the paper supports this {self.kind}.")
        return said

    def schema(self):
        """JSON schema of the arguments."""
        properties = {name: {**q.schema(), **({"default": self.defaults[name]} if name in self.defaults else {})} for name, q in self.arguments.items()}
        required = [name for name in self.arguments if name not in self.defaults]
        return {"type": "object", "title": self.id, "properties": properties, "required": required, "additionalProperties": False}

    def __repr__(self):
        return f"<{self.kind} {self.id}>"


@dataclass(frozen=True)
class Trial(Part):
    """How a claim is put to the test: a form, the function that makes its evidence, the claim, and variants of it that must be rejected."""

    shelf = "trials"
    paper: "Paper"
    name: str
    form: Any
    function: Any
    claim: Any
    controls: dict[str, Any]
    results: tuple[str, ...]
    quick: int
    full: int
    data: str | None = None

    @property
    def id(self):
        return f"{self.paper.slug}.{self.name}"

    @property
    def summary(self):
        return _first_paragraph(self.function.__doc__ or "")


@dataclass(frozen=True)
class Finding(Part):
    """Where a claim, a constant or the usual reading turned out wrong, loose or incomplete; `function` reproduces it as a record of numbers with `holds`."""

    shelf = "findings"
    paper: "Paper"
    name: str
    sentence: str
    function: Any
    trial: str | None
    data: str | None = None


@dataclass
class Paper(Shown):
    """A paper, and what its file declares. `says` is its content in our own words; `source` where its formulas come from."""

    module: str
    title: str
    arxiv: str
    tags: list[str]
    source: str
    says: str
    notes: str = ""  # on the source: what was checked, what the brief or the paper has wrong
    results: dict[str, Result] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)

    def __reduce_ex__(self, protocol):
        return (catalogue.paper, (self.slug,)) if _in_book(self) else super().__reduce_ex__(protocol)

    def __post_init__(self):
        assert self.source in SOURCES, f"{self.module}: the source of formulas is one of {', '.join(SOURCES)}, not {self.source!r}"
        self.says = " ".join(self.says.split())
        self.notes = " ".join(self.notes.split())

    @property
    def slug(self):
        return self.module.rpartition(".")[2].replace("_", "-")

    @property
    def chapter(self):
        return self.module.split(".")[-2]

    @property
    def year(self):
        return 2000 + int(self.arxiv[:2])

    @property
    def kinds(self):
        return sorted({result.kind for result in self.results.values()}, key=KINDS.index)

    @property
    def link(self):
        return f"https://arxiv.org/abs/{self.arxiv}"

    def _result(self, kind, statement, *, assumes=(), requires=None, **more):
        def declare(function):
            signature = inspect.signature(function)
            defaults = {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}
            arguments = {}
            for name, parameter in signature.parameters.items():
                quantity = parameter.annotation
                assert isinstance(quantity, Quantity), f"{self.slug}.{function.__name__}: annotate {name} with a quantity"
                arguments[name] = optional(quantity) if name in defaults and defaults[name] is None else quantity
            returns = signature.return_annotation
            assert isinstance(returns, Quantity), f"{self.slug}.{function.__name__}: annotate the answer with a quantity"
            result = Result(self, function.__name__, kind, function, statement, arguments, defaults, returns, tuple(assumes), requires or {}, **more)
            self.results[result.name] = result
            function.result = result
            function.__doc__ = _full_docstring(result)
            return function

        return declare

    law = partialmethod(_result, "law")
    bound = partialmethod(_result, "bound")
    limit = partialmethod(_result, "limit")
    algorithm = partialmethod(_result, "algorithm")
    model = partialmethod(_result, "model")
    measure = partialmethod(_result, "measure")

    def trial(self, form, *, of, controls, quick, full, claim=None, data=None):
        """Declare a trial of the results `of`.

        The function gets `draw` (random values) and the claim (the first of `of`, or `claim`), and `data` and `effort` ("quick" or "full") where it has
        parameters of these names; it returns the evidence that `form` judges. Each of `controls` (name -> wrong claim) must be rejected."""
        assert controls, "a trial that cannot fail is a defect: give a negative control"

        def declare(function):
            names = tuple(f.__name__ for f in of)
            self.trials[function.__name__] = Trial(self, function.__name__, form, function, claim if claim is not None else of[0], controls, names, quick, full, data)
            return function

        return declare

    def finding(self, sentence, *, trial=None, data=None):
        """Declare a finding and the function that reproduces it: no arguments (or the named data set), a record of numbers with a truth value `holds`."""

        def declare(function):
            self.findings[function.__name__] = Finding(self, function.__name__, " ".join(sentence.split()), function, trial.__name__ if trial else None, data)
            return function

        return declare

    def bibtex(self):
        return (
            f"@misc{{{self.slug},\n  title = {{{self.title}}},\n  year = {{{self.year}}},\n  eprint = {{{self.arxiv}}},\n  archivePrefix = {{arXiv}},\n  url = {{{self.link}}}\n}}"
        )


def _needs_python(quantity):
    return isinstance(quantity, Function) or (isinstance(quantity, Either) and all(map(_needs_python, quantity.options)))


def _first_paragraph(doc):
    return " ".join(dedent(doc).strip().split("\n\n")[0].split())


def described(quantity):
    """A quantity in one phrase: its domain and what it means."""
    if isinstance(quantity, Record | Table):
        fields = quantity.fields if isinstance(quantity, Record) else quantity.columns
        kind = "record" if isinstance(quantity, Record) else "table"
        return f"a {kind} of " + "; ".join(f"{key}: {described(q)}" for key, q in fields.items())
    phrase = quantity.allowed()
    if isinstance(quantity, Array) and quantity.unit and f"({quantity.unit})" not in phrase:
        phrase += f" ({quantity.unit})"
    return phrase + (f": {quantity.doc}" if quantity.doc else "")


def _full_docstring(result):
    """The author's words, then what the declaration knows: arguments with shapes and units, the answer, errors and source."""
    lines = [inspect.cleandoc(result.function.__doc__ or ""), "", f"Statement: {result.statement}", "", "Args:"]
    for name, quantity in result.arguments.items():
        default = f" Default {result.defaults[name]!r}." if name in result.defaults else ""
        lines.append(f"    {name}: {described(quantity)}.{default}")
    lines += ["", "Returns:", f"    {described(result.returns)}."]
    if result.assumptions:
        lines += ["", "Assumes:"] + [f"    {sentence}" for sentence in result.assumptions]
    lines += [
        "",
        "Raises (through lawbook.run and the faces):",
        "    DomainError: an argument is outside the domain above" + "".join(f"; {sentence}" for sentence in result.requires) + ".",
    ]
    lines += ["", f"Source: {result.paper.title}, arXiv {result.paper.arxiv} ({SOURCES[result.paper.source]})."]
    return "\n".join(lines)
