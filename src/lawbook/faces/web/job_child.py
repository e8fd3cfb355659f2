"""The process of a job that draws the page about what it has made, too: the same page as the shell's --report."""

import tempfile
from pathlib import Path

from ...jobs import child
from ...jobs.fitted import Ranking
from ...jobs.plan import Plan
from ...jobs.scores import ScoresFit


def report(kind, made, command):
    """The page of a fit, a plan or an audit as text; None of others."""
    from .. import report

    write = next((name for of, name in ((Ranking, "write_fit"), (ScoresFit, "write_scores"), (Plan, "write_plan")) if isinstance(made, of)), None)
    write = getattr(report, "write_audit", None) if kind in ("audit", "log") else write and getattr(report, write)
    if write is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write(made, page, command)
        return page.read_text(encoding="utf-8")


if __name__ == "__main__":
    child.main(report)
