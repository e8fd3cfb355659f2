"""The shell as people use it, and every way to use it wrongly: one clear sentence, exit status 2."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = ("run", "rope-base-region.slowest_phase", "--head-dim", "128", "--context-length", "128Ki")


def test_help_is_readable(shell):
    status, out, _ = shell("--help")
    assert status == 0 and all(verb in out for verb in ("find", "run", "solve", "fit", "verify", "findings"))
    status, out, _ = shell("run", "rope-base-region.slowest_phase", "--help")
    assert status == 0 and "--context-length" in out and "RoPE base" in out and "Example:" in out


def test_find_prints_what_tools_read(shell):
    _, out, _ = shell("find", "--format", "json")
    for paper in json.loads(out):
        assert {"slug", "title", "chapter", "arxiv", "source", "kinds", "tags", "results", "trials"} <= paper.keys()
        assert all({"name", "kind", "arguments", "statement"} <= r.keys() for r in paper["results"])
        assert all({"name", "form", "results"} <= t.keys() and t["control"] is True for t in paper["trials"])


def test_run_formats(shell, tmp_path):
    status, out, _ = shell(*RUN, "--base", "500k")
    assert status == 0 and out.split() == ["slowest_phase", "0.3218", "rad"]
    _, out, _ = shell(*RUN, "--base", "500k", "--format", "json")
    assert json.loads(out)["value"] == pytest.approx(0.3218, abs=1e-4)
    _, out, _ = shell(*RUN, "--base", "1e4,1e5,1e6", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(r["base"]) for r in rows] == [1e4, 1e5, 1e6]
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"base": "500k", "head_dim": 64}))
    _, out, _ = shell("run", "rope-base-region.slowest_phase", "--args", arguments, "--head-dim", "128", "--context-length", "128Ki")
    assert "0.3218" in out, "options win over the file"


@pytest.mark.parametrize("kind", ["svg", "png", "html"])
def test_plots(shell, tmp_path, kind):
    picture = tmp_path / f"out.{kind}"
    status, _, _ = shell(*RUN, "--base", "1e4:1e7:log:30", "--plot", picture)
    assert status == 0 and picture.stat().st_size > 3000
    if kind != "png":
        text = picture.read_text()
        assert "slowest phase (rad)" in text and ("base" in text)


def test_solve(shell):
    status, out, _ = shell("solve", "rope-base-region.slowest_phase", "base=?", "--target", "3.14", "--head-dim", "128", "--context-length", "128Ki")
    assert status == 0 and out.startswith("base = 49422.28")
    status, _, err = shell("solve", "rope-base-region.context_wall", "layers=?", "--target", "1e12", "--tolerance", "0.1")
    assert status == 2 and "No solution" in err and "lies above" in err


def test_solve_when_an_argument_is_called_target(shell):
    status, out, _ = shell("solve", "noisy-binary-search.flips_lower", "coins=?", "--target", "300", "--argument-target", "0.5", "--epsilon", "0.1", "--delta", "0.05")
    assert status == 0 and out.startswith("coins = ")


def test_verify(shell):
    status, out, err = shell("verify", "rope-base-region", "--workers", "1")
    assert status == 0 and out.count("upheld") >= 3 and "3 upheld" in err and "\x1b" not in out
    status, out, _ = shell("verify", "rope-base-region", "--workers", "1", "--format", "json")
    assert all(v["controls"] for v in json.loads(out))


def test_findings(shell):
    status, out, _ = shell("findings", "rope-base-region", "--run")
    assert status == 0 and out.count("reproduced") >= 2 and "NOT" not in out
    assert json.loads(shell("findings", "--format", "json")[1])


BAD = {
    "unknown paper": (("run", "rope-base-regoin.slowest_phase"), "did you mean rope-base-region"),
    "unknown result": (("run", "rope-base-region.slowest"), "slowest_phase"),
    "unknown argument": ((*RUN, "--bass", "3"), "--base"),
    "missing argument": (("run", "rope-base-region.slowest_phase", "--base", "3"), "needs head_dim, context_length"),
    "wrong suffix": ((*RUN, "--base", "5GB"), "'GB' is not a suffix"),
    "not a number": ((*RUN, "--base", "big"), "base must be a number"),
    "nan": ((*RUN, "--base", "nan"), "base must be a number above 1"),
    "infinity": ((*RUN, "--base", "inf"), "base must be a number above 1"),
    "negative": ((*RUN, "--base", "-5"), "base must be a number above 1; it was -5"),
    "odd head_dim": (("run", "rope-base-region.slowest_phase", "--base", "1e4", "--head-dim", "65", "--context-length", "9"), "head_dim must be even"),
    "long sweep": ((*RUN, "--base", "1k:2k:1000000000"), "at most 1,000,000 points"),
    "plot without sweep": ((*RUN, "--base", "1e4", "--plot", "x.svg"), "needs a sweep"),
    "wrong picture": ((*RUN, "--base", "1e4:1e5", "--plot", "x.gif"), "svg, png, html"),
    "picture nowhere": ((*RUN, "--base", "1e4:1e5", "--plot", "/no/such/folder/x.svg"), "cannot be written"),
    "wrong choice": (("run", "rope-base-region.base_lower", "--head-dim", "128", "--context-length", "9", "--kind", "best"), "one of wrap, nyquist, dc, depth"),
    "no file of arguments": (("run", "rope-base-region.slowest_phase", "--args", "/no/such.json"), "cannot be read"),
    "a seed below 0": (("verify", "rope-base-region", "--seed", "-1"), "seed must be a whole number from 0"),
    "a number beyond floats": (("run", "rope-base-region.slowest_phase", "--base", "1" + "0" * 400, "--head-dim", "64", "--context-length", "9"), "base must be a number above 1"),
    "no verb": (("fly",), "No such command"),
    "nothing to verify": (("verify",), "Say what to verify"),
    "unknown trial": (("verify", "rope-base-region.nothing"), "There is no trial or result"),
    "no table": (("fit", "/no/such.csv"), "There is no file"),
    "wrong law": (("fit", "--law", "rope-base-region.base_lower"), "only a law can be fitted"),
    "unknown tag": (("find", "--tag", "cooking"), "There is no tag"),
    "solve for two": (
        ("solve", "rope-base-region.slowest_phase", "base=?", "--target", "3", "--base", "3", "--head-dim", "64", "--context-length", "9"),
        "both given and solved for",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(shell, case):
    arguments, said = BAD[case]
    status, out, err = shell(*arguments)
    assert status == 2 and out == ""
    assert said in err and len(err.strip().splitlines()) == 1


TABLES = {
    "empty file": ("", "is empty"),
    "no rows": ("params,tokens,loss\n", "no rows"),
    "missing column": ("params,loss\n1,2\n", "needs the columns tokens"),
    "a cell that is no number": ("params,tokens,loss\n1e6,1e8,3\n1e6,lots,3\n", "row 2 holds 'lots'"),
    "too few rows": ("params,tokens,loss\n1e6,1e8,3\n", "too few"),
    "negative size": ("params,tokens,loss\n" + "-1e6,1e8,3\n" * 9, "params (row 1) must be a number above 0"),
}


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables(shell, tmp_path, case):
    content, said = TABLES[case]
    table = tmp_path / "runs.csv"
    table.write_text(content)
    status, _, err = shell("fit", table, "--law", "beyond-chinchilla.chinchilla_loss")
    assert status == 2 and said.replace("columns", "column") in err.replace("columns", "column") and len(err.strip().splitlines()) == 1


def test_unreadable_tables(shell, tmp_path):
    broken = tmp_path / "runs.parquet"
    broken.write_bytes(b"PAR1 this is not parquet")
    assert shell("fit", broken)[0] == 2
    jsonl = tmp_path / "runs.jsonl"
    jsonl.write_text('{"params": 1, "tok')
    assert shell("fit", jsonl)[0] == 2
    assert shell("fit", tmp_path)[0] == 2


def test_truncated_json(shell, tmp_path):
    arguments = tmp_path / "arguments.json"
    arguments.write_text('{"base": 1e4, "head_dim": ')
    status, _, err = shell("run", "rope-base-region.slowest_phase", "--args", arguments)
    assert status == 2 and "breaks off" in err and "line 1" in err


def command(*arguments, **more):
    return subprocess.Popen([sys.executable, "-m", "lawbook.faces.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_a_pipe_that_closes_is_no_error():
    reader = subprocess.run(f"{sys.executable} -m lawbook.faces.cli find | head -1", shell=True, capture_output=True, text=True, check=True)
    assert reader.stderr == "" and reader.stdout


def test_interrupted_by_the_keyboard_and_resumed(tmp_path):
    home = {**os.environ, "LAWBOOK_HOME": str(tmp_path / "kept")}
    process = command("verify", "--all", "--workers", "1", env=home)
    assert process.stdout.readline(), "a first verdict arrives"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in err and "Traceback" not in err
    kept = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from verdicts').fetchone()[0])",
            str(tmp_path / "kept" / "records.sqlite"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(kept.stdout) >= 1


def test_a_full_disk_costs_a_warning_not_a_verdict(tmp_path):
    home = {**os.environ, "LAWBOOK_HOME": str(tmp_path / "kept"), "PYTHONDONTWRITEBYTECODE": "1"}
    limited = f"trap '' XFSZ; ulimit -f 4; exec {sys.executable} -m lawbook.faces.cli verify rope-base-region --workers 1"  # no file may grow beyond 4 blocks
    done = subprocess.run(["bash", "-c", limited], env=home, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.count("upheld") >= 3 and "shown but not kept" in done.stderr and "Traceback" not in done.stderr


def test_half_written_files_do_not_stay(shell, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def breaks(self, path, **_):
        Path(path).write_text("<svg half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", breaks)
    status, _, err = shell(*RUN, "--base", "1e4:1e7:log:9", "--plot", tmp_path / "out.svg")
    assert status == 2 and "No space left" in err and not list(tmp_path.glob("out*"))
