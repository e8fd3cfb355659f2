"""Machine code by numba. Importing this module imports numba: papers do so inside their functions."""

import numba


def compiled(function):
    """Numba's machine code for `function`, kept on disk between runs where there is a place to write."""
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:
        return numba.njit(error_model="numpy")(function)
