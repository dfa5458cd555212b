"""`negmerge merge` killed at random moments, and started twice on one OUT: OUT is whole or absent, and always the same.

The moments are drawn over the time in which there is something to spoil: from the first byte written beside OUT until a
little after OUT is there. Where a kill comes before that, nothing is on disk yet.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.cli import main
from negmerge.merging.output.verifying import verify_model

HANG = 300  # seconds after which a command that should have ended has not
POLLS = (
    200_000  # looks at a command that should have begun to write; counted, since a machine may stand still for a while
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base and four members of 16 MB, so that writing OUT takes a while."""
    folder = tmp_path_factory.mktemp("inputs")
    draw = torch.Generator().manual_seed(0)
    base = {f"layer{i}.weight": torch.randn(1000, 1000, generator=draw) for i in range(4)}
    write_state_dict(folder / "base.safetensors", base)
    for i in range(4):
        member = {name: value + torch.randn(value.shape, generator=draw) for name, value in base.items()}
        write_state_dict(folder / f"member{i}.safetensors", member)
    return [str(path) for path in sorted(folder.iterdir())]


def words(inputs, output, *more):
    shards = [] if output.suffix == ".safetensors" else ["--max-shard-size", "5MB"]
    return ["merge", *inputs, "-o", str(output), "--no-hash", "--workers", "1", *shards, *more]


def start(arguments):
    command = [sys.executable, "-m", "negmerge", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def merged(arguments):
    """Run the same command in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def is_writing(output):
    """Whether the place where OUT is written before it is whole has something in it, and so is locked."""
    partial = output.with_name(f".{output.name}.partial")
    try:
        return any(partial.iterdir()) if partial.is_dir() else partial.stat().st_size > 0
    except FileNotFoundError:
        return False


def wait_until_writing(process, output):
    """Wait until OUT is being written; return whether that was seen before the command had ended."""
    for _ in range(POLLS):
        if is_writing(output):
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    process.kill()
    raise AssertionError(f"no byte beside {output}: {process.communicate()}")


def start_writing(inputs, output):
    """Start the command with no OUT there, and return it stopped (SIGSTOP) while it writes."""
    for _ in range(20):  # on a busy machine this process may sleep through the time of writing
        clear(output)
        process = start(words(inputs, output))
        if wait_until_writing(process, output):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # it stands still, or has ended
            if is_writing(output):
                return process
            process.send_signal(signal.SIGCONT)
        _out, err = process.communicate(timeout=HANG)
        assert err == "", err
    raise AssertionError("twenty merges were never seen while they wrote")


def content(output):
    """The bytes of OUT by name, or None where there is none."""
    if output.is_dir():
        return {file.name: file.read_bytes() for file in output.iterdir()}
    return output.read_bytes() if output.exists() else None


def seconds_of_writing(inputs, output):
    """How long an undisturbed command takes from the first byte beside OUT until OUT is there."""
    process = start_writing(inputs, output)
    process.send_signal(signal.SIGCONT)
    started = time.perf_counter()
    while not output.exists():
        assert time.perf_counter() - started < HANG
        time.sleep(0.0005)
    took = time.perf_counter() - started
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 0, err
    return took


def kill(inputs, output, delay, *more):
    """Start the command, and kill it some seconds after it began to write."""
    process = start(words(inputs, output, *more))
    if wait_until_writing(process, output):
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode in (-signal.SIGKILL, 0), err


def check_kills(inputs, tmp_path, name, overwrite, moments):
    """Kill at each moment, as a share of the time of writing; return how many kills came before OUT was there."""
    place = tmp_path / "place"
    place.mkdir()
    output = place / name
    # What else runs on the machine only makes it longer.
    seconds = [seconds_of_writing(inputs, output) for _ in range(1 if len(moments) < 3 else 3)]
    whole = content(output)
    assert merged(words(inputs, output, "--overwrite", "--alpha", "0.5")) == 0
    old = content(output)
    assert old != whole
    more = ["--overwrite"] if overwrite else []
    hits = 0
    for moment in moments:
        clear(output)
        if overwrite:
            assert merged(words(inputs, output, "--alpha", "0.5")) == 0
        kill(inputs, output, moment * min(seconds), *more)
        left = content(output)
        hits += left != whole
        # A swap of folders has an instant without OUT, from which the next command recovers.
        absent = not overwrite or (place / f".{name}.negmerge-old").is_dir()
        assert left == whole or (absent and left is None) or (overwrite and left == old), moment
        assert left is None or verify_model(output).count > 0
        if left is not None and not overwrite:
            assert merged(words(inputs, output)) == 2  # it exists and is whole: nothing to do again
        else:
            assert merged(words(inputs, output, *more)) == 0
        assert content(output) == whole, moment
        assert names(place) == [name], moment
    return hits


def names(folder):
    """What lies in a folder, hidden files included."""
    return [path.name for path in folder.iterdir()]


def clear(output):
    """Remove OUT, where there is one."""
    if output.is_dir():
        shutil.rmtree(output)
    output.unlink(missing_ok=True)


LONG = pytest.mark.heavy(3)
OUTS = ["o.safetensors", pytest.param("out", marks=LONG)]
CASES = [
    ("o.safetensors", False),
    pytest.param("out", False, marks=LONG),
    pytest.param("o.safetensors", True, marks=LONG),
    pytest.param("out", True, marks=LONG),
]


@pytest.mark.parametrize(("name", "overwrite"), CASES)
def test_a_killed_merge_leaves_out_absent_or_whole(inputs, tmp_path, name, overwrite):
    assert check_kills(inputs, tmp_path, name, overwrite, (0.2,)) > 0


@pytest.mark.heavy(115)
@pytest.mark.parametrize(("name", "overwrite"), CASES)
def test_a_merge_killed_at_25_random_moments(inputs, tmp_path, name, overwrite):
    draw = random.Random(f"{name} {overwrite}")
    assert check_kills(inputs, tmp_path, name, overwrite, [draw.uniform(0, 1.2) for _ in range(25)]) >= 8


@pytest.mark.parametrize("name", OUTS)
def test_a_second_process_on_an_out_that_is_being_written(inputs, tmp_path, name):
    """The first is held while it writes, so that the second certainly meets it."""
    output = tmp_path / "place" / name
    output.parent.mkdir()
    assert merged(words(inputs, output)) == 0
    whole = content(output)
    first = start_writing(inputs, output)
    try:
        second = start(words(inputs, output))
        out, err = second.communicate(timeout=HANG)
    finally:
        first.send_signal(signal.SIGCONT)
    assert err == f"negmerge: {output} is being written by another process; wait for it to end\n" and out == ""
    assert second.returncode == 1
    _, err = first.communicate(timeout=HANG)
    assert first.returncode == 0, err
    assert content(output) == whole and names(output.parent) == [name]


@pytest.mark.parametrize("name", OUTS)
def test_two_processes_at_the_same_time(inputs, tmp_path, name):
    output = tmp_path / "place" / name
    output.parent.mkdir()
    processes = [start(words(inputs, output)) for _ in range(2)]
    told = [process.communicate(timeout=HANG) for process in processes]
    assert [process.returncode for process in processes].count(0) == 1
    for process, (out, err) in zip(processes, told, strict=True):
        if process.returncode:
            assert out == "" and err.count("\n") == 1, err
            busy = "is being written by another process" in err and process.returncode == 1
            assert busy or (f"{output} exists" in err and process.returncode == 2), err
    one = content(output)
    assert merged(words(inputs, output, "--overwrite")) == 0
    assert content(output) == one and names(output.parent) == [name]
