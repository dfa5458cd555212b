"""`pytest --deadline SECONDS`: the shortest heavy tests first, and none for which the time does not suffice."""

import signal
import time

import pytest

DEADLINE = pytest.StashKey[float]()
NO_TIME = "no time left"
running = []  # names of the tests that have begun and not ended


def pytest_addoption(parser):
    text = "the shortest heavy tests first, and none that would end later than SECONDS from now"
    parser.addoption("--deadline", type=float, metavar="SECONDS", help=text)


def pytest_configure(config):
    seconds = config.getoption("deadline")
    if seconds is not None:
        config.stash[DEADLINE] = time.monotonic() + seconds
        if not hasattr(config, "workerinput"):  # the process that prints, not one of xdist's workers
            signal.signal(signal.SIGTERM, name_and_exit)


def name_and_exit(number, _frame):
    signal.signal(number, signal.SIG_IGN)  # make and the shell pass the signal on again
    pytest.exit(f"ended while running {', '.join(running)}", 128 + number)


def expected_seconds(item):
    """How long a heavy test takes on two idle cores: the number in its marker, 60 where there is none; 0 for others."""
    mark = item.get_closest_marker("heavy")
    return 0 if mark is None else mark.args[0] if mark.args else 60


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if DEADLINE in config.stash:
        items.sort(key=expected_seconds)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    seconds = expected_seconds(item)
    if seconds and time.monotonic() + seconds > item.config.stash.get(DEADLINE, float("inf")):
        pytest.skip(NO_TIME)


def pytest_runtest_logstart(nodeid):
    running.append(nodeid)


def pytest_runtest_logfinish(nodeid):
    running.remove(nodeid)


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("skipped", ()):
        if NO_TIME in str(report.longrepr):
            terminalreporter.write_line(f"{NO_TIME}: {report.nodeid}")
