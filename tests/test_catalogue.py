"""Every paper of the book, without knowing any: examples, known values, domains, schemas, docstrings, array libraries, trials and their controls, findings."""

import inspect
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lawbook.contract import Caution, LawbookError, catalogue
from lawbook.contract.encoding import dumps, encode
from lawbook.contract.paper import KINDS, SOURCES
from lawbook.contract.quantity import Array, Either, Function, Number, Record
from lawbook.faces import notebook
from lawbook.jobs.run import as_columns, run
from lawbook.jobs.verify import judge, reproduce

PAPERS = {p.slug: p for p in catalogue.papers()}
RESULTS = {r.id: r for p in PAPERS.values() for r in p.results.values()}
TRIALS = {t.id: t for p in PAPERS.values() for t in p.trials.values()}
FINDINGS = {f"{f.paper.slug}.{f.name}": f for p in PAPERS.values() for f in p.findings.values()}
CLOSED = {name: r for name, r in RESULTS.items() if r.closed_form}
DRAWS = 25

pytestmark = pytest.mark.filterwarnings("ignore::lawbook.contract.Caution")


def quiet(function, **arguments):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", Caution)
        return function(**arguments)


def only_python(result):
    """Whether a required argument is a function, so that no other face can give it."""
    return any(isinstance(q, Function) and name not in result.defaults for name, q in result.arguments.items())


@pytest.mark.parametrize("slug", PAPERS)
def test_paper(slug):
    paper = PAPERS[slug]
    assert paper.results and paper.trials
    assert paper.source in SOURCES and len(paper.says.split()) > 25 and paper.tags
    assert paper.title and paper.arxiv.replace(".", "").isdigit()
    tried = {name for t in paper.trials.values() for name in t.results}
    assert tried == set(paper.results), f"untried results: {set(paper.results) - tried}"
    source = inspect.getsource(inspect.getmodule(next(iter(paper.results.values())).function))
    assert len(source[: source.index("@paper.trial")].splitlines()) <= 370, "results this long have something to share: move it down to numerics"
    for word in ("print(", "open(", "__main__", "/work"):
        assert word not in source, f"{word} has no place in a paper"


@pytest.mark.parametrize("name", RESULTS)
def test_declaration(name):
    result = RESULTS[name]
    assert result.kind in KINDS and result.statement
    assert result.summary.endswith(".") and len(result.summary.split()) >= 5, "the docstring begins with a sentence"
    for word in ("Args:", "Returns:", "Raises", "Source:"):
        assert word in result.function.__doc__
    if result.kind == "law" and result.observes:
        assert any(getattr(q, "fitted", False) or (isinstance(q, Either) and any(isinstance(o, Record) for o in q.options)) for q in result.arguments.values())
    json.dumps(encode(result.schema()), allow_nan=False)
    assert "<math" in notebook.html(result), f"the statement of {name} cannot be rendered"


@pytest.mark.parametrize("name", RESULTS)
def test_example(name):
    """The example runs, its answer lies in the range declared for it, is JSON, has columns, and equals the published value where there is one."""
    result = RESULTS[name]
    lacking = [a for a, q in result.arguments.items() if a not in result.defaults and q.example is None]
    assert not lacking, f"no example for {lacking}"
    answer = run(result, result.example())
    result.returns.read(answer.value, "answer")
    json.loads(dumps(answer.to_dict()))
    assert answer.columns()
    assert notebook.html(answer)
    if result.gives is not None:
        published = result.gives if isinstance(result.gives, dict) else {"": result.gives}
        for field, value in published.items():
            found = answer.value[field] if field else answer.value
            if isinstance(value, str):
                assert found == value
                continue
            np.testing.assert_allclose(found, value, rtol=0, atol=0.51 * last_digit(value), err_msg=f"{name} {field}")


def last_digit(value):
    """One unit in the last digit that a published number is written with; the largest over a vector."""
    if isinstance(value, list | tuple | np.ndarray):
        return max(last_digit(v) for v in value)
    if isinstance(value, int | bool):
        return 1e-9 * max(abs(value), 1)
    mantissa, _, exponent = repr(float(value)).partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


@pytest.mark.parametrize("name", RESULTS)
def test_inside_the_domain(name):
    """Random arguments give an answer in the declared range or a declared error; what was read once reads the same from JSON."""
    result = RESULTS[name]
    if only_python(result):
        with pytest.raises(LawbookError):
            result.bind(dict.fromkeys(result.arguments, "text"))
        return
    rng = np.random.default_rng(0)
    answered = 0
    for _ in range(DRAWS):
        given = result.draw(rng)
        bound = result.bind(given)
        if not any(callable(v) for v in bound.values()):
            again = result.bind(json.loads(dumps({k: v for k, v in given.items() if v is not None})))
            assert dumps(again) == dumps(bound), "JSON changes the arguments"
        try:
            value = quiet(result.function, **bound)
        except LawbookError as error:
            assert len(str(error)) < 400 and "\n" not in str(error)
            continue
        answered += 1
        result.returns.read(value, "answer")
        assert as_columns(value, result)
    assert answered >= DRAWS // 5, "most random arguments are refused: narrow the quantities or give a sample"


@pytest.mark.parametrize("name", RESULTS)
def test_outside_the_domain(name):
    result = RESULTS[name]
    example = result.example()
    for argument, quantity in result.arguments.items():
        for wrong in quantity.outside():
            with pytest.raises(LawbookError) as refused:
                result.bind({**example, argument: wrong})
            assert argument in str(refused.value), f"the refusal of {wrong!r} does not name {argument}: {refused.value}"
    with pytest.raises(LawbookError, match="no argument"):
        result.bind({**example, "no_such_argument": 1})
    required = [a for a in result.arguments if a not in result.defaults]
    for argument in required:
        with pytest.raises(LawbookError, match="needs"):
            result.bind({k: v for k, v in example.items() if k != argument})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["1,2", "1:2", "[1", "{", "1e400", "nan", "-5", "70B", "a=b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@pytest.mark.parametrize("name", RESULTS)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(data=st.data())
def test_junk(name, data):
    """Whatever is handed over, `bind` reads it or says in one sentence why not."""
    result = RESULTS[name]
    argument = data.draw(st.sampled_from(sorted(result.arguments)))
    try:
        result.bind({**result.example(), argument: data.draw(JUNK)})
    except LawbookError as error:
        assert "\n" not in str(error)


def leaves(value):
    """Numbers and arrays of an answer."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    return [] if isinstance(value, str | type(None)) else [value]


def numeric(result, bound):
    """Arguments that a closed form takes as arrays."""
    return [name for name, q in result.arguments.items() if _numeric(q, bound[name])]


def _numeric(quantity, value):
    options = quantity.options if isinstance(quantity, Either) else (quantity,)
    return any((isinstance(o, Number) and not o.static) or (isinstance(o, Array) and isinstance(o.of, Number)) for o in options) and isinstance(value, int | float | np.ndarray)


@pytest.fixture(scope="module")
def jax64():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def close(mine, theirs):
    for a, b in zip(leaves(mine), leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(b, float), np.asarray(a, float), rtol=2e-9, atol=1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_in_jax(name, jax64):
    """The same values from NumPy and from JAX under jit; vmap over a batch; finite gradients in every real argument."""
    import jax
    import jax.numpy as jnp

    result = CLOSED[name]
    bound = result.bind(result.example())
    varied = numeric(result, bound)
    fixed = {k: v for k, v in bound.items() if k not in varied}
    point = {k: jnp.asarray(bound[k], float) for k in varied}

    def call(point):
        return result.function(**fixed, **point)

    expected = quiet(result.function, **bound)
    close(expected, jax.jit(call)(point))
    batch = {k: jnp.stack([v, v * 1]) for k, v in point.items()}
    mapped = jax.vmap(call)(batch)
    for a, b in zip(leaves(expected), leaves(mapped), strict=True):
        np.testing.assert_allclose(np.asarray(b)[1], np.asarray(a, float), rtol=2e-9, atol=1e-12)
    gradients = jax.grad(lambda point: sum(jnp.sum(leaf) for leaf in leaves(call(point))))(point)
    for argument, gradient in gradients.items():
        assert np.isfinite(np.asarray(gradient)).all(), f"the gradient in {argument} is not finite"


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_broadcasts(name):
    """A swept scalar gives one value a point: what `run` relies on for sweeps in one call."""
    result = CLOSED[name]
    bound = result.bind(result.example())
    for argument, quantity in result.arguments.items():
        if isinstance(quantity, Number) and not quantity.static and isinstance(result.returns, Number) and isinstance(bound[argument], int | float):
            swept = np.array([bound[argument], bound[argument]], float)
            values = quiet(result.function, **{**bound, argument: swept})
            np.testing.assert_allclose(np.broadcast_to(values, (2,)), quiet(result.function, **bound), rtol=1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_in_torch(name):
    torch = pytest.importorskip("torch", reason="torch is not installed, and not required")
    result = CLOSED[name]
    bound = result.bind(result.example())
    tensors = {k: torch.asarray(bound[k], dtype=torch.float64) if k in numeric(result, bound) else bound[k] for k in bound}
    close(quiet(result.function, **bound), quiet(result.function, **tensors))


@pytest.mark.parametrize("name", TRIALS)
def test_trial(name):
    """The claim is upheld, or violated with a counterexample that the paper's file reports; every control is rejected; one seed gives one verdict."""
    trial = TRIALS[name]
    verdict = judge(trial.paper.slug, trial.name, seed=0, effort="quick")
    assert verdict.controls and all(c["rejected"] for c in verdict.controls), verdict.controls
    if verdict.status == "violated":
        assert any(f.trial == trial.name for f in trial.paper.findings.values()), f"violated without a finding: {verdict}"
    else:
        assert verdict.status in ("upheld", "vacuous"), str(verdict)
    assert verdict.reason and verdict.samples > 0 and verdict.worst and trial.summary
    json.dumps(verdict.to_dict(), allow_nan=False)
    assert notebook.html(verdict)
    if verdict.seconds < 3:
        assert judge(trial.paper.slug, trial.name, seed=0, effort="quick").evidence() == verdict.evidence()


@pytest.mark.parametrize("name", FINDINGS)
def test_finding(name):
    evidence = reproduce(FINDINGS[name])
    assert evidence["holds"], evidence
    assert len(evidence) > 1


def test_kinds_and_forms_are_all_used():
    assert {r.kind for r in RESULTS.values()} >= {"law", "bound", "limit", "algorithm", "measure"}
    assert {t.form.name for t in TRIALS.values()} == {"identity", "inequality", "coverage", "rate", "distribution", "guarantee", "prediction"}
