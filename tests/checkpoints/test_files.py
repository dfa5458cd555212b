"""Reading and writing: round trips, agreement with the safetensors library, hostile files, atomic writes."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from negmerge.checkpoints import (
    atomic_write,
    hash_file,
    open_checkpoint,
    read_state_dict,
    write_bytes_atomic,
    write_state_dict,
)
from negmerge.errors import InputError, NegmergeError
from pools import make_state


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and torch.equal(a[name], b[name]), name


def test_what_is_written_reads_back_here_and_in_the_library(tmp_path):
    state = make_state(0)
    write_state_dict(tmp_path / "x.safetensors", state, {"k": "ü"})
    same(load_file(tmp_path / "x.safetensors"), state)
    same(read_state_dict(tmp_path / "x.safetensors"), state)
    assert open_checkpoint(tmp_path / "x.safetensors").metadata == {"k": "ü"}


def test_what_the_library_writes_is_read(tmp_path):
    state = make_state(1)
    save_file(state, tmp_path / "x.safetensors", {"a": "b"})
    same(read_state_dict(tmp_path / "x.safetensors"), state)


def test_reads_are_parts_of_the_flattened_tensor(tmp_path):
    state = make_state(0)
    write_state_dict(tmp_path / "x.safetensors", state)
    torch.save(state, tmp_path / "x.pt")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pt"):
        checkpoint = open_checkpoint(path)
        assert torch.equal(checkpoint.read("brain", 3, 20), state["brain"].flatten()[3:20])
        assert checkpoint.read("empty").shape == (0,)
        assert checkpoint.shape("scale") == () and checkpoint.dtype("half").name == "float16"


def test_equal_tensors_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_state_dict(tmp_path / f"{name}.safetensors", make_state(0), {"x": "1", "y": "2"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files(tmp_path, nest, prefix, zipped):
    state = {f"{prefix}{name}": value for name, value in make_state(0).items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    same(read_state_dict(tmp_path / "x.pt"), state)
    same(read_state_dict(tmp_path / "x.pt", make_state(0)), make_state(0))


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("how", ["torch", "legacy", "plain"])
def test_a_pickle_that_would_execute_is_refused(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    if how == "plain":
        (tmp_path / "x.pt").write_bytes(pickle.dumps(Attack(), protocol=2))
    else:
        torch.save({"a": Attack()}, tmp_path / "x.pt", _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(InputError, match="would execute code when loaded; save its state_dict"):
        open_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{"a": 1}, {}, [torch.ones(1)], {"state_dict": {"a": "text"}}])
def test_files_without_a_state_dict_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"state_dict"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, name, keep):
    path = tmp_path / name
    torch.save(make_state(0), path) if name == "x.pt" else write_state_dict(path, make_state(0))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(InputError, match="not a whole"):
        read_state_dict(path)


def header(entries, data=b"\0" * 8):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


HOSTILE = {
    "list": (header([1]), "not a JSON object"),
    "not utf-8": (header(b"\xff\xfe{}"), "not JSON"),
    "deep": (header(b"[" * 100_000), "not JSON"),
    "duplicate": (header(b'{"a":1,"a":2}'), "names a tensor twice"),
    "no entry": (header({"a": 5}), "is not dtype, shape and data_offsets"),
    "more keys": (header({"a": entry(extra=1)}), "is not dtype, shape and data_offsets"),
    "unknown dtype": (
        header({"a": entry(dtype="F8_E4M3", shape=(8,))}),
        r"is quantised \(fp8: a is F8_E4M3\)",
    ),
    "dtype no text": (header({"a": entry(dtype=["F32"])}), "is not a text"),
    "negative shape": (header({"a": entry(shape=(-2,))}), "not a list of counts"),
    "float shape": (header({"a": entry(shape=(2.0,))}), "not a list of counts"),
    "true shape": (header({"a": entry(shape=(True, 2))}), "not a list of counts"),
    "huge shape": (header({"a": entry(shape=(2**61, 2**61))}), "bytes for shape"),
    "wrong size": (header({"a": entry(shape=(3,))}), r"has 8 bytes for shape \[3\]"),
    "negative offset": (header({"a": entry(offsets=(-8, 0))}), "not two counts"),
    "reversed": (header({"a": entry(offsets=(8, 0))}), "lies at bytes 8:0"),
    "beyond": (header({"a": entry(offsets=(8, 16))}), "lies at bytes 8:16 of 8"),
    "gap": (header({"a": entry(shape=(1,), offsets=(4, 8))}), r"starts at byte 4, expected 0 \(overlap or gap\)"),
    "overlap": (header({"a": entry(), "b": entry(shape=(1,), offsets=(4, 8))}), "starts at byte 4, expected 8"),
    "rest": (header({"a": entry(shape=(1,), offsets=(0, 4))}), "4 bytes after the last tensor"),
    "metadata": (header({"__metadata__": {"a": 1}, "b": entry()}), "not a map of texts"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path, case):
    data, message = HOSTILE[case]
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / "x.safetensors")


@settings(max_examples=300, deadline=None)
@given(
    position=st.integers(0, 2000), value=st.integers(0, 255), name=st.sampled_from(["x.safetensors", "x.pt", "old.pt"])
)
def test_a_changed_byte_is_an_error_or_a_file_that_reads(tmp_path_factory, position, value, name):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / name
    if name == "x.safetensors":
        write_state_dict(path, make_state(0))
    else:
        torch.save(make_state(0), path, _use_new_zipfile_serialization=name == "x.pt")
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        read_state_dict(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_folders_hold_one_weight_file(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.safetensors and no \.bin file"):
        open_checkpoint(tmp_path)
    write_state_dict(tmp_path / "weights.safetensors", make_state(0))
    assert open_checkpoint(tmp_path).path == tmp_path
    write_state_dict(tmp_path / "more.safetensors", make_state(0))
    with pytest.raises(InputError, match=r"holds 2 weight files \(more.safetensors, weights.safetensors"):
        open_checkpoint(tmp_path)
    write_state_dict(tmp_path / "model.safetensors", {"only": torch.ones(1)})
    assert open_checkpoint(tmp_path).names == ("only",)


def test_paths_that_are_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_checkpoint(tmp_path / "none.safetensors")
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(InputError, match=r"begins neither like a safetensors file nor like one of torch\.save"):
        open_checkpoint(tmp_path / "x.csv")


def test_the_hash_is_that_of_its_definition(tmp_path, monkeypatch):
    monkeypatch.setattr("negmerge.checkpoints.hashing.LEAF", 4)
    (tmp_path / "x").write_bytes(b"0123456789")
    leaves = b"".join(hashlib.sha256(part).digest() for part in (b"0123", b"4567", b"89"))
    expected = hashlib.sha256((10).to_bytes(8, "little") + leaves).hexdigest()
    assert hash_file(tmp_path / "x") == f"sha256-tree:{expected}"
    assert hash_file(tmp_path / "x", 10) == f"sha256-tree:{hashlib.sha256(bytes(8)).hexdigest()}"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with pytest.raises(ValueError, match="stop"), atomic_write(target) as file:
        file.write(b"new")
        raise ValueError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and target.read_bytes() == b"old"


def test_a_stale_partial_is_taken_over_and_one_in_use_is_not(tmp_path):
    (tmp_path / ".x.partial").write_bytes(b"much longer than what comes now")
    write_bytes_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    with (
        atomic_write(tmp_path / "x"),
        pytest.raises(NegmergeError, match="is being written by another process"),
        atomic_write(tmp_path / "x"),
    ):
        pass


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "x").symlink_to(tmp_path / "real")
    write_bytes_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "real").read_bytes() == b"real" and not (tmp_path / "x").is_symlink()
    (tmp_path / ".y.partial").symlink_to(tmp_path / "real")
    with pytest.raises(NegmergeError, match="cannot be written"):
        write_bytes_atomic(tmp_path / "y", b"new")
    assert (tmp_path / "real").read_bytes() == b"real"


KILLED = """
import sys, torch
from pathlib import Path
from negmerge.checkpoints import write_state_dict
print("ready", flush=True)
while True:
    write_state_dict(Path(sys.argv[1]), {"a": torch.arange(3_000_000)})
"""


LONG = pytest.mark.heavy(2)


@pytest.mark.parametrize("delay", [0.005, pytest.param(0.02, marks=LONG), pytest.param(0.05, marks=LONG), 0.11])
def test_a_killed_writer_leaves_a_whole_file_or_none(tmp_path, delay):
    target = tmp_path / "x.safetensors"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if target.exists():
        assert torch.equal(read_state_dict(target)["a"], torch.arange(3_000_000))
    write_state_dict(target, {"a": torch.arange(3)})
    assert torch.equal(read_state_dict(target)["a"], torch.arange(3))
