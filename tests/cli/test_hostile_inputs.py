"""Broken and hostile inputs through the command line, as base and as member: exit code 2, one message, no OUT."""

import json
import os
import shutil

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.cli import main
from pools import drift, make_state


def changed(name, value):
    def make(place):
        write_state_dict(place / "x.safetensors", {**drift(make_state(0), 9), name: value})
        return place / "x.safetensors"

    return make


def whole(place):
    return changed("scale", torch.tensor(2.0))(place)


def cut(place):
    file = whole(place)
    file.write_bytes(file.read_bytes()[:-1])
    return file


def empty(place):
    (place / "x.safetensors").write_bytes(b"")
    return place / "x.safetensors"


def header(edit, length=None):
    """The header of a whole file, edited as JSON or as text; and a length that it claims."""

    def make(place):
        file = whole(place)
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        content = edit(json.loads(data[8:end]))
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data[end:])
        return file

    return make


def offsets(name, begin, end):
    return header(lambda content: {**content, name: {**content[name], "data_offsets": [begin, end]}})


def twice(content):
    return json.dumps(content).encode().replace(b'"stem.bias"', b'"scale"')


def sharded(change):
    """Two shards and their index, changed."""

    def make(place):
        names = list(make_state(0))
        parts = {f"model-{i + 1:05}-of-00002.safetensors": names[i::2] for i in range(2)}
        for file, part in parts.items():
            write_state_dict(place / file, {name: drift(make_state(0), 9)[name] for name in part})
        weight_map = {name: file for file, part in parts.items() for name in part}
        change(place, weight_map)
        (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return place

    return make


def outside(place, weight_map):
    """A whole file where the index must not reach."""
    shutil.copy(place / weight_map["scale"], place.parent / "outside.safetensors")
    weight_map.update(scale="../outside.safetensors")


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


def pickled(zipped):
    def make(place):
        torch.save({**make_state(0), "scale": Attack()}, place / "x.pt", _use_new_zipfile_serialization=zipped)
        return place / "x.pt"

    return make


def linked_to_itself(place):
    (place / "x.safetensors").symlink_to(place / "x.safetensors")
    return place / "x.safetensors"


def pipe(place):
    os.mkfifo(place / "x.safetensors")
    return place / "x.safetensors"


NAN, INF = float("nan"), float("inf")
CASES = {
    "truncated": (cut, "is not a whole safetensors file"),
    "empty": (empty, "it has 0 bytes"),
    "overlapping offsets": (offsets("stem.bias", 0, 28), "overlap or gap"),
    "offsets out of range": (offsets("stem.bias", 10**9, 10**9 + 28), "lies at bytes 1000000000:1000000028 of"),
    "absurd header length": (
        header(lambda content: content, 2**63),
        "its header claims 9,223,372,036,854,775,808 bytes",
    ),
    "duplicate names": (header(twice), "its header names a tensor twice"),
    "index out of its folder": (sharded(outside), "points at '../outside.safetensors'"),
    "index to an absolute path": (
        sharded(lambda place, weight_map: weight_map.update(scale="/etc/passwd")),
        "points at '/etc/passwd'",
    ),
    "missing shard": (
        sharded(lambda place, weight_map: (place / weight_map["scale"]).unlink()),
        "1 shards are missing",
    ),
    "pickle that executes": (pickled(True), "would execute code when loaded"),
    "old pickle that executes": (pickled(False), "would execute code when loaded"),
    "NaN": (changed("stem.bias", torch.full((7,), NAN)), "stem.bias holds NaN or Inf"),
    "infinity": (changed("half", torch.full((33,), INF).half()), "half holds NaN or Inf"),
    "wrong dtype": (
        header(lambda content: {**content, "scale": {**content["scale"], "dtype": "F99"}}),
        "tensor scale has dtype F99, which is not supported",
    ),
    "wrong shape": (changed("scale", torch.ones(2)), "scale has shape"),
    "one name more": (changed("ghost", torch.ones(2)), "ghost"),
    "a link to itself": (linked_to_itself, "no such file or folder"),
    "a pipe": (pipe, "is not a regular file"),
}


def refused(capfd, tmp_path, *inputs):
    """Run the command on a name OUT in its own folder; return what stderr says."""
    out = tmp_path / "place"
    out.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(["merge", *map(str, inputs), "-o", str(out / "o.safetensors")])
    shown, err = capfd.readouterr()
    assert stop.value.code == 2 and shown == "", err
    assert err.startswith("negmerge: ") and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before
    return err


@pytest.mark.parametrize("role", ["base", "member"])
@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_one_message(pool, tmp_path, monkeypatch, capfd, case, role):
    monkeypatch.chdir(tmp_path)
    make, message = CASES[case]
    (tmp_path / "given").mkdir()
    given = make(tmp_path / "given")
    err = refused(capfd, tmp_path, *((given, *pool[1]) if role == "base" else (pool[0], *pool[1], given)))
    assert message in err and str(tmp_path / "given") in err
    assert err.count("\n") == 1 or len(err.splitlines()) <= 12  # a listing has at most ten names


@pytest.mark.parametrize("name", ["o.safetensors", "out"])
def test_an_out_that_is_a_link_to_itself(pool, tmp_path, capfd, name):
    (tmp_path / name).symlink_to(tmp_path / name)
    for more in ([], ["--overwrite"]):
        with pytest.raises(SystemExit) as stop:
            main(["merge", *map(str, (pool[0], *pool[1])), "-o", str(tmp_path / name), *more])
        err = capfd.readouterr().err
        assert stop.value.code == 2 and err.startswith(f"negmerge: {tmp_path / name} ") and err.count("\n") == 1
    assert (tmp_path / name).is_symlink()


def test_a_base_that_is_no_number(pool, tmp_path, capfd):
    write_state_dict(tmp_path / "bad.safetensors", {**make_state(0), "stem.bias": torch.full((7,), NAN)})
    assert "tensor stem.bias holds NaN or Inf" in refused(capfd, tmp_path, tmp_path / "bad.safetensors", *pool[1])


def test_a_member_that_equals_the_base(pool, tmp_path, capfd):
    shutil.copy(pool[0], tmp_path / "copy.safetensors")
    err = refused(capfd, tmp_path, pool[0], pool[1][0], tmp_path / "copy.safetensors")
    assert "has the same content as" in err and err.count("\n") == 1
