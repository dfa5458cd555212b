"""The deadline of the heavy tests, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

TOY = """
import pytest

@pytest.mark.heavy(500)
def test_long(): raise SystemError

@pytest.mark.heavy(2)
def test_second(): pass

@pytest.mark.heavy(1)
def test_first(): pass

@pytest.mark.heavy
def test_without_a_number(): pass

def test_quick(): pass
"""


def toy(folder, *words):
    (folder / "test_toy.py").write_text(TOY)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = heavy\n")
    command = [sys.executable, "-m", "pytest", "-p", "deadline", "-p", "no:cacheprovider", "-v", *words]
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = [line.removeprefix("test_toy.py::").split(" ")[:2] for line in done.stdout.splitlines() if "::" in line]
    return done, lines


def test_the_shortest_come_first_and_a_test_that_does_not_fit_is_named(tmp_path):
    done, lines = toy(tmp_path, "--deadline", "30")
    assert [test for test in lines if test[0].startswith("test_")] == [
        ["test_quick", "PASSED"],
        ["test_first", "PASSED"],
        ["test_second", "PASSED"],
        ["test_without_a_number", "SKIPPED"],
        ["test_long", "SKIPPED"],
    ]
    named = [line for line in done.stdout.splitlines() if line.startswith("no time left")]
    assert named == [f"no time left: test_toy.py::test_{name}" for name in ("without_a_number", "long")]
    assert done.returncode == 0


def test_without_a_deadline_all_run_in_their_order_and_a_failure_counts(tmp_path):
    done, lines = toy(tmp_path)
    assert lines[0] == ["test_long", "FAILED"] and "no time left" not in done.stdout
    assert [state for _, state in lines[1:5]] == ["PASSED"] * 4
    assert done.returncode == 1
