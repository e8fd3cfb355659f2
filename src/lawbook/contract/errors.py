"""What lawbook says when it cannot answer, or answers with a reservation."""

import difflib
import warnings


class LawbookError(ValueError):
    """Anything a user can mend: the message is one clear sentence."""


class DomainError(LawbookError):
    """An argument outside the domain of a result."""


class UnknownName(LawbookError):
    """A paper, result, argument, column or trial that does not exist; names the nearest ones that do."""

    def __init__(self, what, name, known):
        known = [str(k) for k in known]
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif len(known) <= 12:
            hint = f"there is {', '.join(known)}." if known else "there is none."
        else:
            hint = "`lawbook find` lists what there is."
        super().__init__(f"There is no {what} {name!r}; {hint}")

    def __reduce__(self):
        return LawbookError, self.args  # what it was made of stays behind


class Caution(UserWarning):
    """An answer outside the range where the paper supports its claim."""


def caution(sentence):
    """Answer all the same, with a reservation that every face shows beside the answer."""
    warnings.warn(sentence, Caution, stacklevel=3)
