"""Compiled loops: by numba where it is installed; `AVAILABLE` says so. Compiled code is cached on disk.

The cache of a function is renewed when its own file changes. So a loop must not use a constant of another file.
"""

from collections.abc import Callable
from typing import Any

try:
    import numba

    AVAILABLE = True
except Exception:  # pragma: no cover  (absent, or built for another numpy: the plain functions do the work)
    AVAILABLE = False


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a loop; it lets go of the interpreter's lock, and division by zero gives inf, as in torch."""
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function) if AVAILABLE else function
