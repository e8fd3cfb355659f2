"""A paper's file dropped into a folder is in the book: every verb and face knows it, with no other edit."""

import json

import numpy as np
import pytest

import lawbook
from lawbook.contract import catalogue

FILE = '''
"""How long a random walk takes."""

import numpy as np

from lawbook.contract import Paper, count, positive, record, seed
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Identity

paper = Paper(
    __name__,
    title="A Walk That Nobody Wrote",
    arxiv="2611.00001",
    tags=["random walk"],
    source="none",
    says="The mean squared distance of a simple random walk from its start equals the number of its steps, in every dimension, times the squared length of one step.",
)


@paper.law(r"E|X_n|^2 = n s^2", closed_form=True, observes="distance_squared", gives=16.0)
def squared_distance(steps: count("steps", example=4), *, length: positive("m", fitted=True, example=2.0) = 1.0) -> positive("m^2"):
    """Mean squared distance of the walk after some steps."""
    _, n, s = arrays(steps, length)
    return n * s**2


@paper.model(r"X_{n+1} = X_n \\\\pm 1")
def walk(steps: count("steps", typical=(1, 50), example=9), *, seed: seed() = 0) -> record(end=positive("m", low=-1e9, scale="linear"), steps=count("steps")):
    """One walk on the line: where it ends after all its steps."""
    return {"end": float(np.random.default_rng(seed).choice([-1, 1], steps).sum()), "steps": steps}


@paper.trial(Identity(), of=[squared_distance, walk], controls={"distance grows like n^2": lambda steps: steps**2}, quick=5, full=50)
def simulated(draw, claim):
    """Simulated walks spread as the law says."""
    n = draw.integer(5, 60)
    ends = [walk(n, seed=int(s))["end"] for s in draw.rng.integers(2**31, size=600)]
    return Estimate.of(np.square(ends)), float(claim(n)), {"steps": n}
'''


@pytest.fixture
def new_paper(tmp_path, monkeypatch):
    chapter = tmp_path / "book" / "walks"
    chapter.mkdir(parents=True)
    (chapter / "nobodys_walk.py").write_text(FILE)
    monkeypatch.setenv("LAWBOOK_CHAPTERS", str(tmp_path / "book"))


def test_every_verb_knows_it(new_paper, shell, tmp_path):
    assert lawbook.find("random walk")[0]["slug"] == "nobodys-walk"
    assert lawbook.find(chapter="walks")[0]["kinds"] == ["law", "model"]
    assert lawbook.run("nobodys-walk.squared_distance", steps="1k").value == 1000
    assert lawbook.solve("nobodys-walk.squared_distance", "length", target=16, steps=4).roots == pytest.approx([2.0])
    verdicts = lawbook.verify("nobodys-walk", workers=1)
    assert [v.status for v in verdicts] == ["upheld"] and verdicts[0].controls[0]["rejected"]
    steps = np.arange(1, 30)
    fitted = lawbook.fit({"steps": steps, "distance_squared": 9.0 * steps}, law="nobodys-walk.squared_distance", holdout=0)
    assert fitted.best.parameters["length"] == pytest.approx(3.0)
    assert lawbook.verify("nobodys-walk", workers=2)[0].evidence() == verdicts[0].evidence()


def test_options_and_documentation(new_paper, shell):
    status, out, _ = shell("run", "nobodys-walk.walk", "--help")
    assert status == 0 and "--steps" in out and "--seed" in out
    status, out, _ = shell("show", "nobodys-walk.walk")
    assert status == 0 and "Args:" in out and "Source:" in out
    status, out, _ = shell("run", "nobodys-walk.walk", "--steps", "9", "--format", "json")
    assert abs(json.loads(out)["value"]["end"]) <= 9
    assert "nobodys-walk" in shell("show", "nobodys-walk")[1]
    assert catalogue.result("nobodys-walk.walk").schema()["required"] == ["steps"]
