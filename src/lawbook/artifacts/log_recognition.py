"""Which kind of log a file is: its fields matched with the roles of each kind, by name and by what they hold."""

from ..contract import LawbookError, UnknownName
from .log_fields import KINDS, SENSITIVE, TESTS, WILD, is_number, matches, most, plain_name


def recognise(names, sample, kind=None, given=None):
    """(Kind, role -> field, sentences) of a log with fields `names`, of which `sample` holds some values; LawbookError where it cannot be told.

    `kind` names the kind, and `given` the fields of some roles, by name or by number from 1.
    """
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind of log", kind, KINDS)
    given = {role: _column(role, wanted, names) for role, wanted in (given or {}).items()}
    unknown = next((role for role in given if not any(role in k.roles for k in KINDS.values())), None)
    if unknown:
        raise UnknownName("role of a field", unknown, sorted({role for k in KINDS.values() for role in k.roles}))
    candidates = [KINDS[kind]] if kind else [k for k in KINDS.values() if given.keys() <= k.roles.keys()]
    found = [(k, fields) for k in candidates if (fields := _fields(k, names, sample, given)) and _enough(k, fields)]
    if not found:
        raise LawbookError(_why_not(names, candidates, kind))
    chosen, fields = found[0]
    if wrong := next((role for role in given if role not in chosen.roles), None):
        raise UnknownName(f"role of {chosen.name}", wrong, chosen.roles)
    said = [f"read as {chosen.name}: {chosen.about}" + ("" if kind is None else ", as asked")]
    if renamed := [f"{role} is {field!r}" for role, field in fields.items() if role != field]:
        said.append(", ".join(renamed))
    if chosen.name == "records" and plain_name(fields.get("sensitive")) in SENSITIVE and "sensitive" not in given:
        others = [name for name in names if plain_name(name) in SENSITIVE and name != fields["sensitive"]]
        said.append(f"{fields['sensitive']} is taken as the sensitive attribute" + (f"; {', '.join(others)} could be it too: fields=sensitive={others[0]}" if others else ""))
    outside = [name for name in names if name not in fields.values() and not ("." in name and name.rsplit(".", 1)[0] in names)]
    rest = [str(name) for name in outside if not any(matches(field, name) for field in fields.values())]
    if rest:
        said.append(f"not used: {', '.join(rest[:12])}{f' and {len(rest) - 12} more' if len(rest) > 12 else ''}")
    if len(found) > 1:
        said.append(f"it could also be read as {' or '.join(k.name for k, _ in found[1:4])}: kind={found[1][0].name}")
    return chosen, fields, said


def _column(role, wanted, names):
    """The field that is asked for by name or by number."""
    text = str(wanted)
    if text in names:
        return text
    if text.isdigit() and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    if any(matches(text, name) for name in names):
        return text
    raise LawbookError(f"The field {text!r} for {role} is not in the log; it has {', '.join(map(repr, names[:12]))}{', …' if len(names) > 12 else ''}.")


def _fields(kind, names, sample, given):
    """Role -> field of those that a log has of a kind; a field has one role at most, and must hold what the role needs."""
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(plain_name(name), name)
    fields = dict(given)
    for role in kind.roles:
        if role in fields:
            continue
        for spelling in kind.spellings(role):
            name = known.get(plain_name(spelling))
            if name is not None and name not in fields.values() and _fits(kind.name, role, sample.get(name, ()), known):
                fields[role] = name
                break
        else:
            for prefix in WILD.get((kind.name, role), ()):
                if sum(matches(prefix, name) and most(sample.get(name, ()), is_number) for name in names) > 1:
                    fields[role] = prefix
                    break
    return fields


def _enough(kind, fields):
    return any(set(needs.split()) <= fields.keys() for needs in kind.needs)


def _why_not(names, candidates, kind):
    there = ", ".join(map(str, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    if kind:
        ways = " or ".join(f"{needs.replace(' ', ', ')}" for needs in candidates[0].needs)
        return f"A log of {kind} needs the fields {ways}; this one has {there or 'none'}: say which is which with fields=role=column."
    return f"The log cannot be recognised: its fields are {there or 'none'}; say what it is with kind= ({', '.join(KINDS)}) and which is which with fields=role=column."


def _fits(kind, role, values, known):
    """Whether most values that were seen of a field are what a role holds; of counts that stand beside numbers of samples any number."""
    test = TESTS.get((kind, role))
    if (kind, role) == ("samples", "correct") and any(plain_name(word) in known for word in KINDS["samples"].spellings("samples")):
        test = is_number
    return test is None or most(values, test)
