"""Every line of the tables in docs/formats.md, for real: read, merged, read in pieces, written, refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from formats.reading import ADAPTERS, MODELS, WRITTEN, save_adapter
from formats.refusing import REFUSED
from formats.table import PAGE, renewed
from negmerge.checkpoints import open_adapter, open_checkpoint, read_state_dict, write_state_dict
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.merging.as_adapter import merge_as_adapter
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.verifying import verify_model
from pools import drift, make_state

WAYS = [(model, way) for model in MODELS for way in model.ways]
LARGE = 1_000_000  # elements of the largest tensor
PIECE = 1000


def state(seed=0):
    g = torch.Generator().manual_seed(seed)
    large = {"large": torch.randn(LARGE // 1000, 1000, generator=g)}
    return {**(make_state(0) if seed == 0 else drift(make_state(0), seed)), **large}


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to save in, with the cache of the hub's client in it, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "given" / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


@pytest.fixture
def bytes_read():
    """How many bytes this process has read from files, as the kernel counts them."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("needs the counters of Linux in /proc/self/io")
    return lambda: int(counters.read_text().split("rchar: ")[1].split()[0])


@pytest.mark.parametrize(("model", "way"), WAYS, ids=[f"{model.title}: {way}" for model, way in WAYS])
def test_a_model_is_read_and_merged_as_base_and_as_member(place, tmp_path, model, way):
    given = model.ways[way](place, state())
    same(read_state_dict(given), state())
    write_state_dict(tmp_path / "base.safetensors", state())
    write_state_dict(tmp_path / "other.safetensors", state(1))
    pairs = {"as base": (given, "other.safetensors"), "as member": ("other.safetensors", given)}
    plain = {
        "as base": ("base.safetensors", "other.safetensors"),
        "as member": ("other.safetensors", "base.safetensors"),
    }
    for role, (base, member) in pairs.items():
        merge_checkpoints(base, [member], "out.safetensors", alpha=0.5, overwrite=True)
        expected = plain[role]
        merge_checkpoints(expected[0], [expected[1]], "plain.safetensors", alpha=0.5, overwrite=True)
        same(load_file("out.safetensors"), load_file("plain.safetensors"))


@pytest.mark.parametrize(("model", "way"), WAYS, ids=[f"{model.title}: {way}" for model, way in WAYS])
def test_a_piece_of_a_model_is_read_without_the_rest(place, bytes_read, model, way):
    given = model.ways[way](place, state())
    open_checkpoint(given).close()  # what is imported on first use is no part of it
    before = bytes_read()
    checkpoint = open_checkpoint(given)
    piece = checkpoint.read("large", LARGE // 2, LARGE // 2 + PIECE)
    read = bytes_read() - before
    checkpoint.close()
    assert torch.equal(piece, state()["large"].flatten()[LARGE // 2 : LARGE // 2 + PIECE])
    assert 4 * PIECE <= read < 4 * LARGE / 20


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", ADAPTERS, ids=lambda kind: kind.title)
def test_an_adapter_is_a_member_and_its_change_comes_in_pieces(place, bytes_read, kind, ending):
    folder, base, change = save_adapter(place, kind, ending)
    write_state_dict(Path("base.safetensors"), base)
    merge_checkpoints("base.safetensors", [folder], "out.safetensors", method="uniform", add=True)
    merged = load_file("out.safetensors")
    torch.testing.assert_close(merged["up.weight"], base["up.weight"] + change)
    assert torch.equal(merged["other.weight"], base["other.weight"])
    with pytest.raises(InputError, match="is an adapter, which is no model of its own"):
        merge_checkpoints(folder, ["base.safetensors"], "p.safetensors")
    before = bytes_read()
    opened = open_checkpoint("base.safetensors")
    bound = open_adapter(folder, folder).bind(opened)
    torch.testing.assert_close(bound.read_delta("up.weight", 100, 300), change.flatten()[100:300])
    assert bytes_read() - before < 4 * LARGE / 20  # the factors and a few rows, not the base
    opened.close()


@pytest.mark.parametrize("kind", ADAPTERS, ids=lambda kind: kind.title)
def test_an_adapter_is_written_and_read_again(place, kind):
    folder, base, change = save_adapter(place, kind, "safetensors")
    write_state_dict(Path("base.safetensors"), base)
    merge_as_adapter("base.safetensors", [folder], "one", 4, method="uniform", add=True)
    merge_checkpoints("base.safetensors", ["one"], "out.safetensors", method="uniform", add=True)
    torch.testing.assert_close(
        load_file("out.safetensors")["up.weight"], base["up.weight"] + change, rtol=1e-4, atol=1e-4
    )
    written = json.loads(Path("one/adapter_config.json").read_text())
    marks = {key: value for key, value in kind.config.items() if key not in ("r", "lora_alpha")}
    assert kind.written == all(written.get(key) == value for key, value in marks.items())
    assert verify_model(Path("one")).count == 1


@pytest.mark.parametrize("form", WRITTEN, ids=lambda form: form.title)
def test_a_form_of_out_is_written_and_read_again(place, tmp_path, form):
    base = MODELS[2].ways["model"](place, state())
    write_state_dict(tmp_path / "member.safetensors", state(1))
    merge_checkpoints(base, ["member.safetensors"], form.output, max_shard_size=form.max_shard_size, alpha=0.5)
    output = tmp_path / form.output
    files = sorted([output] if output.is_file() else output.iterdir())
    assert set(form.files) <= {file.name for file in files}
    weights = [file for file in files if file.suffix == ".safetensors"]
    found = {name: value for file in weights for name, value in load_file(file).items()}
    same(found, read_state_dict(output))
    torch.testing.assert_close(found["large"], 1.5 * state()["large"] - 0.5 * state(1)["large"])
    assert verify_model(output).count == len(weights)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.title)
def test_what_is_refused_says_what_to_do(pool, tmp_path, capfd, case):
    (tmp_path / "given").mkdir()
    given = case.make(tmp_path / "given")
    inputs = [pool[0], given] if case.member else [given, pool[0]]
    with pytest.raises(SystemExit) as stop:
        main(["merge", *map(str, inputs), "-o", str(tmp_path / "o.safetensors")])
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1
    assert str(given) in err and case.tool in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "pool"]


def test_the_tables_in_the_docs_are_those_of_the_cases():
    page = PAGE.read_text()
    assert renewed(page) == page, "docs/formats.md is stale: run make docs"
