"""Numbers with more digits than a float holds: computed with mpmath, handed over as decimal text."""

from ..contract.quantity import count, either, real, text

IN_A_FLOAT = 15
DIGITS = count("digits", high=1000, typical=(10, 40), doc="significant decimal digits of the answer")
PRECISE = either(real(), text(), doc=f"a number up to {IN_A_FLOAT} digits, beyond them decimal text")


def told(value, digits):
    """An mpmath number as a float where its digits fit, else as text with that many significant digits."""
    import mpmath

    return float(value) if digits <= IN_A_FLOAT else mpmath.nstr(value, digits, strip_zeros=False)
