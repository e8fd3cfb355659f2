"""Log-probabilities of tokens in their canonical form, also from the answers of chat and completion servers."""

import math

from .log_rows import Rows, floats_of, list_of, number_of, text_of, unpacked
from .log_vectors import steps

NAMES = ("logprobs", "tokens", "entropies", "variances", "advantages", "mask", "top_logprobs", "group")
ROUNDED = 1e-4  # by how much a log-probability may be above 0


def tokens(reading, roles, lines, faults):
    """A row for each text: logprobs (floats, NaN where the server has none), tokens, entropies, variances, advantages, mask (lists as long),
    top_logprobs ({token: logprob} of each step), group.

    Of step_probabilities one row for each step: step_probabilities: matrix[n, V], tokens: [n].
    """
    if {"step_probabilities", "tokens"} <= roles.keys():
        return steps(reading, roles, lines, faults)
    out = Rows(*NAMES)
    for i, line in enumerate(lines):
        row = {name: column[i] for name, column in roles.items()}
        for given in _texts(row):
            found = _text(given)
            if isinstance(found, str):
                faults.add(found, line)
            else:
                out.add(**found, group=text_of(row.get("group")))
    return out.columns


def _texts(row):
    """The texts of a row: itself, or each choice of a completion."""
    if row.get("logprobs") is None and isinstance(choices := row.get("completion"), list):
        return [row | {"logprobs": choice.get("logprobs")} for choice in choices if isinstance(choice, dict)]
    return [row]


def _text(row):
    """The lists of one text, or a sentence that says why there are none."""
    given = unpacked(row.get("logprobs"))
    if isinstance(given, dict):
        row = row | _served(given)
    elif isinstance(given, list) and given and all(isinstance(entry, dict) for entry in given):
        row = row | _served({"content": given})
    found = {name: floats_of(row.get(name)) for name in ("logprobs", "entropies", "variances", "advantages", "mask")}
    length = next((len(values) for name in ("logprobs", "entropies") if (values := found[name])), 0)
    if not length:
        return "no log-probabilities"
    if (advantage := number_of(row.get("advantages"))) is not None:  # one for the whole text
        found["advantages"] = [advantage] * length
    if any(value > ROUNDED for value in found["logprobs"] or ()):
        return "a log-probability above 0"
    if any(value < 0 for value in found["entropies"] or ()):
        return "an entropy below 0"
    others = {"tokens": list_of(row.get("tokens")), "top_logprobs": list_of(row.get("top_logprobs"))}
    for name, values in {**found, **others}.items():
        if values is not None and len(values) != length:
            return f"as many {name} as tokens are needed"
    if others["top_logprobs"]:
        others["top_logprobs"] = [_top(entry) for entry in others["top_logprobs"]]
    return found | others


def _served(given):
    """The logprobs, tokens and top_logprobs of a chat's or a completion's answer."""
    if isinstance(given.get("content"), list):
        content = [entry for entry in given["content"] if isinstance(entry, dict)]
        top = [entry.get("top_logprobs") for entry in content]
        return {"logprobs": [entry.get("logprob") for entry in content], "tokens": [entry.get("token") for entry in content], "top_logprobs": top if any(top) else None}
    return {"logprobs": given.get("token_logprobs"), "tokens": given.get("tokens"), "top_logprobs": given.get("top_logprobs")}


def _top(entry):
    """{token: logprob} of one step, whichever way it is written."""
    if isinstance(entry, list):
        entry = {item.get("token"): item.get("logprob") for item in entry if isinstance(item, dict)}
    return {str(token): math.nan if (v := number_of(p)) is None else v for token, p in entry.items()} if isinstance(entry, dict) else None
