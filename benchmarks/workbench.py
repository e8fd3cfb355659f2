"""How soon the workbench opens and answers: start, and medians of pages and searches on loopback, of the book as it is and filled up to 337 papers.

Usage: python benchmarks/workbench.py
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from lawbook.contract import catalogue

WHOLE = 337
MADE = """"A paper that fills the book up."
from lawbook.contract import Paper, positive
paper = Paper(__name__, title="Made paper {n}", arxiv="2401.{n:05d}", tags=["made"], source="none", says="What number {n} says of attention, loss and gradients.")
@paper.law(r"y = {n} x")
def line_{n}(x: positive(example=1.0)) -> positive():
    "A straight line."
    return {n} * x
"""
PAGES = ("/", "/?part=papers&q=attention+loss", "/paper/rope-base-region", "/verdicts", "/jobs", "/digest", "/api/find?words=rope")
REPEATS = 31


def serve(chapters):
    """Seconds until the workbench answers, and the median seconds of each page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "LAWBOOK_HOME": str(chapters / "home"), "LAWBOOK_CHAPTERS": str(chapters)}
    command = [sys.executable, "-c", "from lawbook.faces.cli import main; main()", "serve", "--port", str(port)]
    starts = []
    for _ in range(2):  # the second finds the index of the book made
        began = time.perf_counter()
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                get(port, "/")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        starts.append(time.perf_counter() - began)
        if len(starts) < 2:
            server.terminate()
            server.wait()
    medians = {page: statistics.median(get(port, page) for _ in range(REPEATS)) for page in PAGES}
    server.terminate()
    server.wait()
    return starts, medians


def get(port, page):
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}") as answer:
        answer.read()
    return time.perf_counter() - began


def workbench():
    here = len(catalogue.files())
    print(f"{'papers':>7}{'first start':>13}{'next start':>12}   " + "".join(f"{page:>32}" for page in PAGES))
    for papers in (here, WHOLE):
        with tempfile.TemporaryDirectory() as folder:
            chapters = Path(folder)
            (chapters / "made").mkdir()
            for n in range(papers - here):
                (chapters / "made" / f"made_paper_{n}.py").write_text(MADE.format(n=n))
            (first, following), medians = serve(chapters)
        print(f"{papers:7}{first:11.2f} s{following:10.2f} s   " + "".join(f"{1e3 * seconds:29.1f} ms" for seconds in medians.values()))


if __name__ == "__main__":
    workbench()
