"""How much the command line says: `-q`, `-v`, and the standard logging of the package on stderr."""

import logging
import sys
from collections.abc import Sequence

QUIET, VERBOSE = ("-q", "--quiet"), ("-v", "--verbose")
PACKAGE = "negmerge"


class _Stderr(logging.Handler):
    """Writes to whatever stderr is by then, so that it is the same under redirection and in tests."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def taken_out(words: Sequence[str]) -> tuple[list[str], int]:
    """Return the words of a command line without `-q` and `-v`, which may stand anywhere, and how much is to be said.

    -1 for `-q`: errors alone; 0; 1 for `-v`: what is done; 2 for `-v -v`: every event. What stands behind `--` is not
    ours.

    >>> taken_out(["run", "-v", "x.yaml"]), taken_out(["-q", "list", "methods"])
    ((['run', 'x.yaml'], 1), (['list', 'methods'], -1))
    """
    words = list(words)
    end = words.index("--") if "--" in words else len(words)
    ours, rest = words[:end], words[end:]
    level = sum(word in VERBOSE for word in ours) + 2 * sum(word == "-vv" for word in ours)
    if any(word in QUIET for word in ours):
        level = -1
    return [word for word in ours if word not in (*QUIET, *VERBOSE, "-vv")] + rest, level


def set_up(level: int) -> None:
    """Send what the package logs to stderr: warnings are printed with the results, so they are told from `-v` on."""
    logger = logging.getLogger(PACKAGE)
    for handler in [one for one in logger.handlers if isinstance(one, _Stderr)]:
        logger.removeHandler(handler)
    logger.setLevel(logging.ERROR if level < 0 else logging.NOTSET)
    if level < 1:
        return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if level == 1 else logging.DEBUG)
    logger.propagate = False


def is_quiet() -> bool:
    """Whether nothing but errors is to be said on stderr."""
    return logging.getLogger(PACKAGE).level > logging.WARNING
