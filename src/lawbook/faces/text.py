"""Answers of the longer jobs as lines of text, for the shell."""

import math

CONVERGED = {True: "converged, ", False: "NOT converged, ", None: ""}
MANY = 12  # parameters from which only their number is told


def ranking_lines(ranking):
    """A ranking of fits: each law with its parameters, its error on what it has not seen, and what there is to say about it."""
    yield ranking.split
    for found in ranking.fits:
        yield ""
        yield f"{found.law.id}   rms residual {found.rms:.3g}   {CONVERGED[found.converged]}{found.agreed}"
        if found.law.kind == "form":
            yield f"  {found.law.statement}"
        yield from _parameters(found)
        for name, (value, low, high) in found.derived.items():
            yield f"  {name:<20} {value:.4g}" + ("" if low is None else f"   90 %: {low:.4g} to {high:.4g}")
        yield f"  AIC {found.aic:.2f}, BIC {found.bic:.2f}"
        if found.test:
            t = found.test
            worse = "" if t["relative_error"] < t["baseline_error"] else "   NO BETTER THAN THE BASELINE"
            plain = f"{t['baseline']}: {100 * t['baseline_error']:.3g} %{worse}"
            yield f"  held-out error {100 * t['relative_error']:.3g} % (worst {100 * t['worst']:.3g} %, R2 {t['r2']:.5f}); {plain}"
        for name, other in found.published.items():
            yield (
                f"  {name} constants: objective {other['objective']:.6g} against {found.objective:.6g}; likelihood ratio {other['likelihood_ratio']:.4g} "
                f"on {other['degrees_of_freedom']} degrees of freedom, p = {other['probability']:.2g}"
            )
        for note in found.notes:
            yield f"  note: {note}"


def _parameters(found):
    if len(found.parameters) > MANY:
        yield f"  {len(found.parameters)} constants; --format json lists them"
        return
    for name, value in found.parameters.items():
        line = f"  {name:<20} {value:.6g}"
        if (error := found.standard_errors.get(name)) is not None:
            line += " (not determined)" if math.isnan(error) else f" ± {error:.2g}"
        for label, intervals in (("90 %", found.intervals), ("profile", found.profile)):
            if name in intervals:
                line += "   {}: {:.4g} to {:.4g}".format(label, *intervals[name])
        yield line
