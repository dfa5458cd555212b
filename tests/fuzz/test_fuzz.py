"""The fuzzer: a few hundred cases each time, and more than twenty thousand among the long tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def fuzz(cases, seed):
    """Run the fuzzer in a process of its own, whose memory it limits."""
    import negmerge

    path = os.pathsep.join((str(TESTS), str(Path(negmerge.__file__).parents[1])))
    words = [sys.executable, "-m", "fuzz.fuzzing", "--cases", str(cases), "--seed", str(seed), "--json"]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"] == []
    return found["counts"]


def test_damaged_checkpoints_are_refused_or_merged_whole():
    counts = fuzz(450, 0)
    assert len(counts) == 15 and all(sum(outcomes.values()) == 30 for outcomes in counts.values())
    assert sum(outcomes.get("refused", 0) for outcomes in counts.values()) > 250


@pytest.mark.heavy
@pytest.mark.parametrize("part", range(4))
def test_twenty_thousand_damaged_checkpoints(part):
    counts = fuzz(6000, 1000 + 6000 * part)
    assert sum(sum(outcomes.values()) for outcomes in counts.values()) == 6000
    assert {"refused", "merged"} == {outcome for outcomes in counts.values() for outcome in outcomes}
