"""Jobs in this process and in workers: same results, errors raised, no worker outlives its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from negmerge.errors import NegmergeError
from negmerge.execution import run_jobs


def job(spec):
    if spec == "bad":
        raise NegmergeError("this job cannot be done")
    generator = torch.Generator().manual_seed(spec)
    return float(torch.randn(64, 64, generator=generator).matmul(torch.ones(64, 8)).sum()), torch.get_num_threads()


@pytest.mark.heavy(4)
def test_workers_do_not_change_results():
    alone = run_jobs(job, [3, 1, 2], workers=1, threads=1)
    assert alone == run_jobs(job, [3, 1, 2], workers=2, threads=1)
    assert [threads for _, threads in alone] == [1, 1, 1]


def test_threads_are_restored():
    before = torch.get_num_threads()
    run_jobs(job, [1], threads=1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_job_is_raised(workers):
    done = []
    with pytest.raises(NegmergeError, match="this job cannot be done"):
        run_jobs(job, [1, "bad"], workers=workers, on_done=lambda spec, _: done.append(spec))
    assert "bad" not in done


SCRIPT = """
import sys, time
from pathlib import Path
from negmerge.execution import run_jobs

def begin(file):
    Path(file).touch()
    time.sleep(60)

if __name__ == "__main__":
    run_jobs(begin, sys.argv[1:], workers=2)
"""


@pytest.mark.heavy(5)
def test_workers_end_with_their_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    begun = [tmp_path / "a", tmp_path / "b"]
    parent = subprocess.Popen([sys.executable, str(script), *map(str, begun)])
    deadline = time.monotonic() + 120
    while not all(file.exists() for file in begun) and time.monotonic() < deadline:
        time.sleep(0.02)  # a worker that has begun a job has begun its watch
    children = _children(parent.pid)
    assert len(children) >= 2 and all(file.exists() for file in begun)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(_alive, children))


def _children(pid):
    path = f"/proc/{pid}/task/{pid}/children"
    if not os.path.exists(path):  # noqa: PTH110
        pytest.skip("needs /proc")
    with open(path) as file:  # noqa: PTH123
        return [int(child) for child in file.read().split()]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
