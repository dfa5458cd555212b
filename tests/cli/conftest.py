"""The command line, called as a function."""

import pytest

from negmerge.cli import main


@pytest.fixture
def negmerge(capfd):
    """Run the command line in this process; returns exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return run
