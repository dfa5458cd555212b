"""Compiled loops: by numba where it is installed; `AVAILABLE` says so. Compiled code is kept on disk.

numba renews what it keeps of a function when that function's own file changes, not when a function that it calls does,
and an installed package's files may all have one date. So the loops of each state of `sources` have a folder of their
own in the user's cache: a hash of these files names it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

try:
    import numba

    AVAILABLE = True
except Exception:  # pragma: no cover  (absent, or built for another numpy: the plain functions do the work)
    AVAILABLE = False


LINEAR_ALGEBRA = "scipy.linalg.cython_blas"


def load_without_linear_algebra() -> None:
    """Load of numba what every compiled loop needs, but not SciPy's linear algebra, which takes a tenth of a second.

    numba imports the latter only to know whether numpy.convolve and numpy.correlate may be compiled to calls of BLAS,
    and finds its own loops for them instead. It is for commands, which end soon: where others use numba in the same
    process, it should find what it looks for.
    """
    if not AVAILABLE or LINEAR_ALGEBRA in sys.modules:
        return
    sys.modules[LINEAR_ALGEBRA] = None  # type: ignore[assignment]  # what an import then finds is none
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules[LINEAR_ALGEBRA]


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a loop; it lets go of the interpreter's lock, and division by zero gives inf, as in torch.

    `options` go to numba.njit, for example `fastmath` for a sum whose order does not matter.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        if not AVAILABLE:
            return function
        options_of_all = {"nogil": True, "error_model": "numpy", **options}
        with _cache_folder(Path(function.__code__.co_filename).parent):
            try:
                return numba.njit(cache=True, **options_of_all)(function)
            except RuntimeError:  # no folder can be written: compiled anew by every process
                return numba.njit(**options_of_all)(function)

    return compile_it if function is None else compile_it(function)


@contextmanager
def _cache_folder(sources: Path) -> Iterator[None]:
    settings: Any = numba.config
    before = settings.CACHE_DIR
    if not before:  # NUMBA_CACHE_DIR is the user's word
        root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
        settings.CACHE_DIR = str(Path(root, "negmerge", f"loops-{_hash_of(sources)}"))
    try:
        yield
    finally:
        settings.CACHE_DIR = before


@cache
def _hash_of(sources: Path) -> str:
    found = sha256()
    for file in sorted(sources.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
