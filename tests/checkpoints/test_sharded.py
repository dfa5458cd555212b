"""Several files and an index, and models of the hub in its cache."""

import json
import os
import subprocess
import sys

import pytest
import torch

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_state_dict
from negmerge.errors import InputError
from pools import make_state


def shard(folder, state, kind="safetensors", parts=3):
    """Write a state dict in several files, as transformers does."""
    folder.mkdir(exist_ok=True)
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    names = list(state)
    weight_map = {}
    for i in range(parts):
        file = f"{stem}-{i + 1:05}-of-{parts:05}.{kind}"
        part = {name: state[name] for name in names[i::parts]}
        write_state_dict(folder / file, part) if kind == "safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_one_checkpoint(tmp_path, kind):
    state = make_state(0)
    shard(tmp_path / "m", state, kind)
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.path == tmp_path / "m" and len(checkpoint.files) == 3
    assert torch.equal(checkpoint.read("brain", 3, 20), state["brain"].flatten()[3:20])
    checkpoint.close()
    found = read_state_dict(tmp_path / "m")
    assert set(found) == set(state) and all(torch.equal(found[name], state[name]) for name in state)


def edit(change):
    def make(index):
        content = json.loads(index.read_text())
        change(content)
        index.write_text(json.dumps(content))

    return make


def point(name, at):
    return edit(lambda content: content["weight_map"].update({name: at}))


BAD_INDEX = {
    "path trick": (point("brain", "../m/model-00001-of-00003.safetensors"), r"brain points at '\.\./m/model"),
    "absolute": (point("brain", "/etc/passwd"), "points at '/etc/passwd', which is no file name beside it"),
    "dots": (point("brain", ".."), r"points at '\.\.'"),
    "nothing": (point("brain", ""), "points at ''"),
    "number": (point("brain", 3), "points at 3"),
    "zero byte": (point("brain", "a\0b"), "points at"),
    "no such shard": (point("brain", "model-9.safetensors"), "1 shards are missing"),
    "wrong shard": (point("stem.weight", "model-00002-of-00003.safetensors"), "does not fit its shards"),
    "more names": (point("ghost", "model-00001-of-00003.safetensors"), "ghost is not in model-00001"),
    "fewer names": (
        edit(lambda content: content["weight_map"].pop("brain")),
        r"brain is in model-0000\d-of-00003.safetensors, the index says nothing",
    ),
    "no map": (lambda index: index.write_text("{}"), "it has no weight_map"),
    "empty map": (lambda index: index.write_text('{"weight_map": {}}'), "it has no weight_map"),
    "list": (lambda index: index.write_text("[]"), "it has no weight_map"),
    "no json": (lambda index: index.write_text("{"), "it is not JSON"),
    "deep": (lambda index: index.write_text("[" * 100_000), "it is not JSON"),
    "twice": (lambda index: index.write_text('{"weight_map": {"a": "x", "a": "y"}}'), "names a tensor twice"),
}


@pytest.mark.parametrize("case", BAD_INDEX)
def test_a_bad_index_is_refused(tmp_path, case):
    make, message = BAD_INDEX[case]
    make(shard(tmp_path / "m", make_state(0)))
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / "m")


def test_a_shard_that_is_gone_or_cut(tmp_path):
    shard(tmp_path / "m", make_state(0))
    file = tmp_path / "m" / "model-00002-of-00003.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"model-00002-of-00003\.safetensors is not a whole safetensors file"):
        open_checkpoint(tmp_path / "m")
    file.unlink()
    with pytest.raises(InputError, match="1 shards are missing; fetch them again:\n  model-00002"):
        open_checkpoint(tmp_path / "m")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub with one model, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "cache" / "models--owner--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True)
    write_state_dict(place / "snapshots" / commit / "model.safetensors", make_state(0))
    other = commit[::-1]
    (place / "refs" / "pr").mkdir()
    (place / "refs" / "pr" / "7").write_text(other)
    (place / "snapshots" / other).mkdir()
    write_state_dict(place / "snapshots" / other / "model.safetensors", make_state(1))
    return commit


def test_a_model_of_the_hub_comes_from_its_cache(hub):
    for name in ("owner/tiny", "owner/tiny@main", f"owner/tiny@{hub}"):
        checkpoint = open_checkpoint(name)
        assert str(checkpoint.path) == f"owner/tiny@{hub}" and "brain" in checkpoint.names
        checkpoint.close()


def test_a_revision_is_a_branch_or_a_commit(hub):
    for name in ("owner/tiny@pr/7", f"owner/tiny@{hub[::-1]}"):
        checkpoint = open_checkpoint(name)
        assert str(checkpoint.path) == f"owner/tiny@{hub[::-1]}"
        assert torch.equal(checkpoint.read("brain"), make_state(1)["brain"].flatten())
        checkpoint.close()
    with pytest.raises(InputError, match="owner/tiny@v9: no such file or folder, and the hub does not give it"):
        open_checkpoint("owner/tiny@v9")


def test_a_merge_of_models_of_the_hub_through_the_command_line(hub, tmp_path):
    """Two revisions of one model, with the client's own switch for no network."""
    words = ["merge", "owner/tiny", "owner/tiny@pr/7", "-o", "out", "--exclude", "^exact", "--json"]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "negmerge", *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["members"] == [f"owner/tiny@{hub[::-1]}"]
    record = json.loads(open_checkpoint(tmp_path / "out").metadata["negmerge"])
    assert record["base"]["name"] == f"owner/tiny@{hub}"


def test_a_hub_model_that_is_not_there(hub):
    with pytest.raises(InputError, match="owner/other: no such file or folder, and the hub does not give it"):
        open_checkpoint("owner/other")


@pytest.mark.parametrize("path", ["owner/x.safetensors", "/owner/x", "a/b/c", "name", "there/x"])
def test_what_is_a_path_is_not_asked_for_on_the_hub(hub, tmp_path, path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="no such file or folder; give a checkpoint that exists"):
        open_checkpoint(path)
