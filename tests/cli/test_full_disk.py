"""`negmerge merge` where OUT cannot be written: files that may not grow, a full disk, a place that is none."""

import os
import resource
import shlex
import shutil
import subprocess
import sys

import pytest
import torch

from negmerge.checkpoints import write_state_dict

# One file, a folder of one, and one of several: a folder is removed as a whole, however many files are in it.
OUTS = ["o.safetensors", "out", pytest.param("shards", marks=pytest.mark.heavy(2))]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base and a member of 80 kB."""
    folder = tmp_path_factory.mktemp("inputs")
    for i, name in enumerate(("base", "member")):
        write_state_dict(
            folder / f"{name}.safetensors", {"a": torch.full((9999,), float(i)), "b": torch.full((9999,), 1.0 + i)}
        )
    return [str(path) for path in sorted(folder.iterdir())]


def words(inputs, output):
    shards = ["--max-shard-size", "50KB"] if output.name == "shards" else []
    return [sys.executable, "-m", "negmerge", "merge", *inputs, "-o", str(output), *shards]


def check(done, output, message, code=1):
    assert done.returncode == code and done.stdout == "", done.stderr
    assert done.stderr == f"negmerge: {output} {message}\n"


@pytest.mark.parametrize("name", OUTS)
def test_files_that_may_not_grow(inputs, tmp_path, name):
    """A limit that the kernel keeps, below the size of every file of weights."""
    place = tmp_path / "place"
    place.mkdir()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(words(inputs, place / name), capture_output=True, text=True, check=False, preexec_fn=limit)
    check(done, place / name, "cannot be written: File too large; free some space or choose another place")
    assert list(place.iterdir()) == []


def in_tmpfs(options, place, script):
    """Run a script where `place` is a file system of its own in memory, which only that process sees."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux) to mount a small file system without being root")
    place.mkdir()
    mount = f"mount -t tmpfs -o {options} none {shlex.quote(str(place))}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a file system of his own")
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {script}"], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", OUTS)
def test_a_disk_that_runs_full(inputs, tmp_path, name):
    place = tmp_path / "place"
    # The command's exit code, and below it what is left on the small disk.
    script = f"{{ {shlex.join(words(inputs, place / name))}; code=$?; ls -A {shlex.quote(str(place))}; exit $code; }}"
    done = in_tmpfs("size=16k", place, script)
    check(done, place / name, "cannot be written: No space left on device; free some space or choose another place")


@pytest.mark.parametrize("name", OUTS)
def test_a_disk_that_is_read_only(inputs, tmp_path, name):
    done = in_tmpfs("ro,size=4k", tmp_path / "place", shlex.join(words(inputs, tmp_path / "place" / name)))
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"{tmp_path / 'place' / name} cannot be written: Read-only file system" in done.stderr


@pytest.mark.parametrize("name", OUTS)
def test_a_folder_that_is_a_file(inputs, tmp_path, name):
    (tmp_path / "file").write_text("x")
    done = subprocess.run(words(inputs, tmp_path / "file" / name), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"{tmp_path / 'file' / name} cannot be written: Not a directory" in done.stderr
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("name", OUTS)
def test_a_folder_of_somebody_else(inputs, tmp_path, name):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    place = tmp_path / "place"
    place.mkdir(mode=0o555)
    done = subprocess.run(words(inputs, place / name), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"{place / name} cannot be written: Permission denied" in done.stderr
    assert list(place.iterdir()) == []
