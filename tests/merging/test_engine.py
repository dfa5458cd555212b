"""Streamed merging against the plain computation in memory, and everything that must be refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts, merge_vector
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.merging.output.verifying import verify_model
from negmerge.merging.passes import plain
from pools import drift, make_state


def naive(base, members, alpha=1.0, add=False, merged=None):
    """The consensus of whole tensors, written as the paper's formula."""
    result = {}
    for name, value in base.items():
        if not value.is_floating_point() or "running_" in name or (merged is not None and name not in merged):
            result[name] = value
            continue
        work = torch.float64 if value.dtype == torch.float64 else torch.float32
        deltas = torch.stack([member[name].to(work) - value.to(work) for member in members])
        agree = (deltas > 0).all(0) | (deltas < 0).all(0)
        total = deltas[0].clone()
        for delta in deltas[1:]:
            total = total + delta
        tau = torch.where(agree, total / len(members), torch.zeros((), dtype=work))
        step = alpha * tau
        result[name] = (value.to(work) + step if add else value.to(work) - step).to(value.dtype)
    return result


def same(a, b):
    assert list(a) == list(b) or set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("alpha", [1.0, 0.35])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 2**18])
def test_streamed_equals_naive(pool, tmp_path, monkeypatch, alpha, add, chunk):
    monkeypatch.setattr(plain, "CHUNK", chunk)
    base, members = pool
    report = merge_checkpoints(base, members, tmp_path / "out.safetensors", alpha=alpha, add=add)
    expected = naive(read_state_dict(base), [read_state_dict(m) for m in members], alpha, add)
    same(load_file(tmp_path / "out.safetensors"), expected)
    changed = sum(int((expected[n] != v).sum()) for n, v in read_state_dict(base).items() if v.dtype == torch.float32)
    assert changed <= report.kept < report.merged_elements < report.elements


def test_bytes_do_not_depend_on_workers_chunks_or_the_order_of_members(pool, tmp_path, monkeypatch):
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "a.safetensors", workers=1)
    monkeypatch.setattr(plain, "CHUNK", 5)
    merge_checkpoints(base, members[::-1], tmp_path / "b.safetensors", workers=4)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_in_memory_equals_files(pool, tmp_path):
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "out.safetensors", method="uniform", alpha=0.7)
    states = [read_state_dict(path) for path in (base, *members)]
    before = [{name: value.clone() for name, value in state.items()} for state in states]
    same(merge_state_dicts(states[0], states[1:], method="uniform", alpha=0.7), load_file(tmp_path / "out.safetensors"))
    for state, copy in zip(states, before, strict=True):
        same(state, copy)


def test_vector_times_alpha_is_what_the_merge_applies(pool, tmp_path):
    base, members = pool
    report = merge_vector(base, members, tmp_path / "tau.safetensors")
    tau = load_file(tmp_path / "tau.safetensors")
    assert set(tau) == {"stem.weight", "stem.bias", "scale", "empty", "half", "brain", "exact", "head.weight"}
    assert tau["half"].dtype == torch.float32 and tau["exact"].dtype == torch.float64
    merge_checkpoints(base, members, tmp_path / "out.safetensors", alpha=0.5)
    merged, origin = load_file(tmp_path / "out.safetensors"), read_state_dict(base)
    for name, delta in tau.items():
        assert torch.equal(merged[name], (origin[name].to(delta.dtype) - 0.5 * delta).to(origin[name].dtype))
    by_name = {tensor.name: tensor for tensor in report.tensors}
    assert by_name["stem.weight"].kept == int(torch.count_nonzero(tau["stem.weight"]))


def test_include_and_exclude_narrow_what_merges(pool, tmp_path):
    base, members = pool
    report = merge_checkpoints(base, members, tmp_path / "o.safetensors", include=["weight$"], exclude=["^head"])
    states = [read_state_dict(path) for path in (base, *members)]
    same(load_file(tmp_path / "o.safetensors"), naive(states[0], states[1:], merged={"stem.weight"}))
    assert report.merged_elements == 35


def test_formats_may_differ(pool, tmp_path):
    base, members = pool
    merge_checkpoints(base, members[:2], tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in read_state_dict(members[0]).items()}}, tmp_path / "0.pt")
    folder = tmp_path / "hf"
    folder.mkdir()
    shutil.copy(members[1], folder / "model.safetensors")
    merge_checkpoints(base, [tmp_path / "0.pt", folder], tmp_path / "b.safetensors")
    same(load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors"))


def test_tied_names_that_the_base_lacks_are_dropped(tmp_path):
    weight = torch.randn(3, 2)
    base = {"embed": weight}
    tuned = weight + 0.1
    torch.save({"embed": tuned, "head": tuned}, tmp_path / "tied.pt")
    torch.save({"embed": tuned, "head": tuned + 1}, tmp_path / "untied.pt")
    write_state_dict(tmp_path / "base.safetensors", base)
    merge_checkpoints(tmp_path / "base.safetensors", [tmp_path / "tied.pt"], tmp_path / "o.safetensors")
    assert list(load_file(tmp_path / "o.safetensors")) == ["embed"]
    with pytest.raises(InputError, match="head is not in the base"):
        merge_checkpoints(tmp_path / "base.safetensors", [tmp_path / "untied.pt"], tmp_path / "p.safetensors")


def test_a_folder_gets_what_belongs_to_the_base(pool, tmp_path):
    base, members = pool
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(base, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "README.md", "model.safetensors.index.json"):
        (folder / name).write_text("{}")
    out = tmp_path / "out"
    merge_checkpoints(folder, members, out)
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    card = (out / "README.md").read_text()
    assert "pool/member0.safetensors" in card and "blake3-tree:" in card and "consensus" in card
    assert verify_model(out).count == 5  # data and layout of the weights; card, config and tokenizer
    first = (out / "model.safetensors").read_bytes()
    merge_checkpoints(folder, members, out, overwrite=True)
    assert (out / "model.safetensors").read_bytes() == first
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_record_can_be_verified_and_a_change_is_found(pool, tmp_path):
    base, members = pool
    out = tmp_path / "out.safetensors"
    merge_checkpoints(base, members, out)
    assert verify_model(out).count == 2
    data = bytearray(out.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    with pytest.raises(InputError, match="it was changed"):
        verify_model(out)
    with pytest.raises(InputError, match="carries no record"):
        verify_model(base)


def test_another_dtype_of_the_output(pool, tmp_path):
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "o.safetensors", dtype="bfloat16")
    found = load_file(tmp_path / "o.safetensors")
    assert found["stem.weight"].dtype == found["exact"].dtype == torch.bfloat16
    assert found["bn.num_batches_tracked"].dtype == torch.int64
    with pytest.raises(InputError, match="dtype must be base, float32, float16, bfloat16 or float64, got"):
        merge_checkpoints(base, members, tmp_path / "p.safetensors", dtype="int8")


def changed(change):
    def make(folder, base):
        state = drift(base, 9)
        change(state)
        write_state_dict(folder / "bad.safetensors", state)

    return make


def raw(data):
    def make(folder, base):
        (folder / "bad.safetensors").write_bytes(data)

    return make


def copy_of(name):
    return lambda folder, base: shutil.copy(folder / name, folder / "bad.safetensors")


HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
BAD_MEMBERS = {
    "missing": (changed(lambda s: s.pop("scale")), r"bad.safetensors: scale is missing"),
    "extra": (changed(lambda s: s.update(more=torch.ones(1))), r"bad.safetensors: more is not in the base"),
    "misshapen": (
        changed(lambda s: s.update({"stem.bias": torch.ones(8)})),
        r"stem.bias has shape \[8\], in the base \[7\]",
    ),
    "integer": (changed(lambda s: s.update(scale=torch.tensor(1))), r"scale is int64, in the base float32"),
    "nan": (
        changed(lambda s: s["stem.bias"].fill_(float("nan"))),
        r"bad.safetensors: tensor stem.bias holds NaN or Inf",
    ),
    "inf": (changed(lambda s: s["half"].fill_(float("inf"))), r"tensor half holds NaN or Inf"),
    "truncated": (
        lambda f, b: (f / "bad.safetensors").write_bytes((f / "base.safetensors").read_bytes()[:-9]),
        "not a whole",
    ),
    "empty file": (raw(b""), "not a whole safetensors file: it has 0 bytes"),
    "absurd header": (raw((2**60).to_bytes(8, "little") + b"{}"), "its header claims"),
    "no json": (raw((4).to_bytes(8, "little") + b"oops"), "its header is not JSON"),
    "out of range": (raw(len(HEADER).to_bytes(8, "little") + HEADER), r"lies at bytes 0:8 of 0"),
    "same as base": (copy_of("base.safetensors"), r"same content as .*base.safetensors"),
    "same as member": (copy_of("member1.safetensors"), r"same content as .*bad.safetensors"),
    "wrong ending": (lambda f, b: None, "no such file"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_a_bad_member_is_one_clear_error_and_nothing_is_written(pool, tmp_path, case):
    base, members = pool
    make, message = BAD_MEMBERS[case]
    make(base.parent, read_state_dict(base))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=message):
        merge_checkpoints(base, [*members, base.parent / "bad.safetensors"], out / "o.safetensors")
    assert list(out.iterdir()) == []


def test_equal_to_the_base_is_found_without_hashes_too(pool, tmp_path):
    base, members = pool
    write_state_dict(base.parent / "copy.safetensors", read_state_dict(base), {"note": "other bytes"})
    with pytest.raises(InputError, match="equals the base in every merged tensor"):
        merge_checkpoints(
            base, [members[0], base.parent / "copy.safetensors"], tmp_path / "o.safetensors", hash_inputs=False
        )
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": []}, "the pool is empty"),
        ({"alpha": float("nan")}, "alpha must be a finite number, got nan"),
        ({"alpha": float("inf")}, "alpha must be a finite number, got inf"),
        ({"settings": {"threshold": 0.4}}, "threshold must be a number from 0.5 to 1, got 0.4"),
        ({"settings": {"treshold": 0.6}}, r"does not take 'treshold' \(did you mean 'threshold'\?\)"),
        ({"method": "uniform", "settings": {"threshold": 0.6}}, "method uniform: it does not take 'threshold'.*none"),
        ({"method": "uniformm"}, r"unknown method 'uniformm' \(did you mean 'uniform'\?\)"),
        ({"method": "best-single"}, "does not merge checkpoints"),
        ({"method": "task-arithmetic"}, "method task-arithmetic: it takes one member, or one weight for each, got 5"),
        ({"include": ["nothing"]}, "'nothing' is found in none of the 12 names of base and members, such as"),
        ({"exclude": ["("]}, r"'\(' is not a regular expression"),
        ({"exclude": ["."]}, "no tensor is left to merge"),
    ],
)
def test_bad_requests(pool, tmp_path, arguments, message):
    base, members = pool
    members = arguments.pop("members", members)
    with pytest.raises(InputError, match=message):
        merge_checkpoints(base, members, tmp_path / "o.safetensors", **arguments)
    assert not (tmp_path / "o.safetensors").exists()


def test_repeated_members_and_the_base_as_a_member(pool, tmp_path):
    base, members = pool
    (tmp_path / "link.safetensors").symlink_to(members[0])
    with pytest.raises(InputError, match="is given twice"):
        merge_checkpoints(base, [*members, tmp_path / "link.safetensors"], tmp_path / "o.safetensors")
    with pytest.raises(InputError, match="is the base itself"):
        merge_checkpoints(base, [*members, base], tmp_path / "o.safetensors")


def test_what_may_be_overwritten(pool, tmp_path):
    base, members = pool
    out = tmp_path / "out.safetensors"
    merge_checkpoints(base, members, out)
    with pytest.raises(InputError, match="exists; choose another OUT, or replace it with --overwrite"):
        merge_checkpoints(base, members, out)
    merge_checkpoints(base, members, out, alpha=0.5, overwrite=True)
    with pytest.raises(InputError, match="is the input"):
        merge_checkpoints(base, members, members[0], overwrite=True)
    with pytest.raises(InputError, match="is the input"):
        merge_checkpoints(base, members, base.parent, overwrite=True)
    shutil.copy(base, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="was not written by negmerge"):
        merge_checkpoints(base, members, tmp_path / "foreign.safetensors", overwrite=True)
    with pytest.raises(NegmergeError, match="cannot be written"):
        merge_checkpoints(base, members, out / "in" / "a file" / "o.safetensors")


def test_a_listing_of_many_problems_has_ten_lines(pool, tmp_path):
    base, _members = pool
    few = dict(list(make_state(0).items())[:2])
    write_state_dict(base.parent / "bad.safetensors", {**few, **{f"other{i}": torch.ones(1) for i in range(30)}})
    with pytest.raises(InputError) as caught:
        merge_checkpoints(base, [base.parent / "bad.safetensors"], tmp_path / "o.safetensors")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("36 tensors do not fit the base")
    assert len(lines) == 12 and lines[-1] == "  … and 26 more"


def test_inspection(pool):
    base, members = pool
    found = inspect_checkpoints(base, members).as_json()
    states = [read_state_dict(path) for path in (base, *members)]
    names = [n for n, v in states[0].items() if v.is_floating_point() and "running" not in n]
    vectors = torch.stack(
        [torch.cat([(s[n].double() - states[0][n].double()).flatten() for n in names]) for s in states[1:]]
    )
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(torch.tensor(found["cosine"]), (unit @ unit.T).float(), atol=1e-5, rtol=0)
    assert found["zero_share"] == pytest.approx(float((vectors == 0).double().mean()), abs=1e-9)
    assert found["chance"] == 1 / 16
    assert found["elements"] == vectors.shape[1]
    assert [t["name"] for t in found["tensors"]] == names or {t["name"] for t in found["tensors"]} == set(names)
    assert json.loads(json.dumps(found)) == found


def test_inspection_warns_of_zeros_chance_and_a_foreign_member(tmp_path):
    base = make_state(0)
    paths = []
    for i, state in enumerate(
        [
            drift(base, 0),
            drift(base, 0, 0.2),
            {k: 2 * base[k] - v if v.is_floating_point() else v for k, v in drift(base, 0).items()},
        ]
    ):
        paths.append(tmp_path / f"{i}.safetensors")
        write_state_dict(paths[-1], state)
    write_state_dict(tmp_path / "base.safetensors", base)
    warnings = inspect_checkpoints(tmp_path / "base.safetensors", paths).warnings
    assert any(w.startswith("unstable-signs") and "2.safetensors points away" in w for w in warnings)
    assert "one member" in inspect_checkpoints(tmp_path / "base.safetensors", paths[:1]).warnings[0]


def test_real_models(shared, tmp_path):
    models = shared / "models"
    base, member = (models / f"resnet20-cifar10-10k-{kind}.safetensors" for kind in ("original", "retrain"))
    report = merge_checkpoints(base, [member], tmp_path / "o.safetensors", alpha=0.25)
    states = [read_state_dict(path) for path in (base, member)]
    same(load_file(tmp_path / "o.safetensors"), naive(states[0], states[1:], 0.25))
    assert report.merged_elements == 269_722
