"""The tree hash by another hand, and what verify names when something of OUT was changed."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from negmerge.checkpoints import open_checkpoint, write_state_dict
from negmerge.checkpoints.pieces import PieceHash, hash_pieces
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.verifying import read_record, verify_model
from pools import drift, make_state

DOCS = Path(__file__).resolve().parents[2] / "docs"


def tree(data, tensors, start=0):
    """The hash of docs/formats.md, from its words: `tensors` are (first byte, end, bytes of an element)."""

    def part(begin, end, step):
        pieces = [blake3(data[at : min(at + step, end)]).digest() for at in range(begin, end, step)]
        return (end - begin).to_bytes(8, "little") + blake3(b"".join(pieces)).digest()

    parts, at = [], start
    for begin, end, width in sorted(tensors):
        if end > begin:
            parts += [part(at, begin, 2**18)] if begin > at else []
            parts.append(part(begin, end, width * 65_536))
            at = end
    parts += [part(at, len(data), 2**18)] if len(data) > at else []
    return "blake3-tree:" + blake3(b"".join(parts)).hexdigest()


def spans(file):
    """The tensors of a safetensors file, by its header, and where its data begin."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8:start])
    entries.pop("__metadata__", None)
    found = []
    for entry in entries.values():
        begin, end = entry["data_offsets"]
        found.append((start + begin, start + end, (end - begin) // max(1, math.prod(entry["shape"]))))
    return found, start


def long_state():
    """Tensors longer than a piece and shorter, of several dtypes, an empty one and a scalar."""
    g = torch.Generator().manual_seed(0)
    return {
        "long": torch.randn(3, 65_536, generator=g),
        "longer.half": torch.randn(150_001, generator=g).bfloat16(),
        "exact": torch.randn(70_000, generator=g).double(),
        "short": torch.randn(7, 5, generator=g),
        "scalar": torch.randn((), generator=g),
        "empty": torch.empty(0, 4),
        "count": torch.tensor([3]),
    }


@pytest.fixture(scope="module")
def long_pool(tmp_path_factory):
    """A base and two members, one of them a .pt file."""
    folder = tmp_path_factory.mktemp("long")
    base = long_state()
    write_state_dict(folder / "base.safetensors", base)
    write_state_dict(folder / "m0.safetensors", drift(base, 0))
    torch.save(drift(base, 1), folder / "m1.pt")
    return folder / "base.safetensors", [folder / "m0.safetensors", folder / "m1.pt"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("out", ["o.safetensors", "shards"])
def test_the_hashes_of_a_record_by_another_hand(long_pool, tmp_path, workers, out):
    base, members = long_pool
    size = None if out == "o.safetensors" else "500KB"
    merge_checkpoints(base, members, tmp_path / out, workers=workers, max_shard_size=size)
    record = read_record(tmp_path / out)
    for facts, file in zip([record["base"], *record["members"]], [base, *members], strict=True):
        if file.suffix == ".safetensors":
            assert facts["hash"] == tree(file.read_bytes(), spans(file)[0]), file
        else:
            checkpoint = open_checkpoint(file)
            (whole,) = checkpoint.opened()
            assert facts["hash"] == tree(file.read_bytes(), whole.tensors) != tree(file.read_bytes(), [])
            raw = file.read_bytes()
            begin, end, width = max(whole.tensors, key=lambda span: span[1] - span[0])
            assert raw[begin:end] == checkpoint.raw("long").tobytes() and width == 4
            checkpoint.close()
    files = {out: record} if out == "o.safetensors" else record["weights"]
    assert len(files) == (1 if out == "o.safetensors" else 4)
    for name, own in files.items():
        file = tmp_path / out if out == "o.safetensors" else tmp_path / out / name
        tensors, start = spans(file)
        assert own["data"] == tree(file.read_bytes(), tensors, start)
        raw = file.read_bytes()
        header = json.loads(raw[8:start])
        header.pop("__metadata__")
        ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        lines = [f"{n}\t{e['dtype']}\t{'×'.join(map(str, e['shape']))}\n" for n, e in ordered]
        assert own["layout"] == tree("".join(lines).encode(), [])
    for name, found in record.get("beside", {}).items():
        assert found == tree((tmp_path / out / name).read_bytes(), []), name


def test_the_same_hash_whatever_is_put_and_what_is_read(tmp_path):
    file = tmp_path / "x.safetensors"
    write_state_dict(file, long_state())
    tensors, _ = spans(file)
    raw = file.read_bytes()
    expected = tree(raw, tensors)
    assert hash_pieces(file, tensors) == expected
    with file.open("rb") as opened:
        for step in (1 << 30, 2**18, 3 * 2**18, 12_345 * 8):  # the last fits no piece: all is left to finish
            found = PieceHash(file, opened.fileno(), len(raw), tensors)
            for begin, end, _ in reversed(tensors):
                for at in reversed(range(begin, end, step)):
                    found.put(begin, at - begin, raw[at : min(at + step, end)])
            assert found.finish(3) == expected, step


def test_the_script_of_the_docs_computes_the_hash_of_an_out(long_pool, tmp_path):
    merge_checkpoints(*long_pool, tmp_path / "o.safetensors")
    (script,) = re.findall(r"```python\n(.*?)```", (DOCS / "formats.md").read_text(), re.DOTALL)
    (tmp_path / "script.py").write_text(script)
    assert len(script.splitlines()) <= 20 and "negmerge import" not in script
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "o.safetensors")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [read_record(tmp_path / "o.safetensors")["data"]] * 2


def rewrite_header(file, change):
    """Change the header of a safetensors file, without moving its data."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= length
    file.write_bytes(raw[:8] + text.ljust(length) + raw[8 + length :])


def swap(key):
    def change(header):
        a, b = header["model.a"], header["model.b"]
        if key is None:
            header["model.a"], header["model.b"] = b, a
        else:
            a[key], b[key] = b[key], a[key]

    return change


def reshape(header):
    header["model.a"]["shape"] = [6, 4]


def as_integers(header):
    header["model.a"]["dtype"] = "I32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A merged folder of shards with all that may lie beside, and one of another α."""
    place = tmp_path_factory.mktemp("merged")
    base = place / "base"
    base.mkdir()
    state = {f"model.{name}": torch.randn(4, 6) for name in "abcd"}
    write_state_dict(base / "model.safetensors", state)
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text('{"a": 1}')
    for i in range(2):
        write_state_dict(place / f"m{i}.safetensors", drift(state, i))
    members = [place / f"m{i}.safetensors" for i in range(2)]
    for name, alpha in (("out", 0.5), ("other", 1.0)):
        merge_checkpoints(base, members, place / name, alpha=alpha, max_shard_size="200")
    merge_checkpoints(base, members, place / "one.safetensors")
    return place


FIRST, LAST = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
CHANGES = {
    "names swapped": (lambda out: rewrite_header(out / FIRST, swap(None)), f"{FIRST}: names, dtypes or shapes"),
    "offsets swapped": (lambda out: rewrite_header(out / FIRST, swap("data_offsets")), f"{FIRST}: names, dtypes or"),
    "another shape": (lambda out: rewrite_header(out / FIRST, reshape), f"{FIRST}: names, dtypes or shapes"),
    "another dtype": (lambda out: rewrite_header(out / FIRST, as_integers), f"{FIRST}: names, dtypes or shapes"),
    "a shard of another merge": (
        lambda out: shutil.copy(out.parent / "other" / FIRST, out / FIRST),
        f"{FIRST} is of another merge: its record differs from that of {LAST}",
    ),
    "the last shard of another merge": (
        lambda out: shutil.copy(out.parent / "other" / LAST, out / LAST),
        f"{LAST} is of another merge: its record differs from that of {FIRST}",
    ),
    "a merge to one file in place of a shard": (
        lambda out: shutil.copy(out.parent / "one.safetensors", out / FIRST),
        f"{FIRST} is of another merge: its record differs from that of {LAST}",
    ),
    "a merge to one file more": (
        lambda out: shutil.copy(out.parent / "one.safetensors", out / "one.safetensors"),
        "one.safetensors was added",
    ),
    "a shard of no merge": (
        lambda out: shutil.copy(out.parent / "base" / "model.safetensors", out / LAST),
        f"{LAST} carries no record: it was replaced",
    ),
    "weights of no merge more": (
        lambda out: shutil.copy(out.parent / "base" / "model.safetensors", out / "more.safetensors"),
        "more.safetensors was added",
    ),
    "config": (lambda out: (out / "config.json").write_text('{"a": 2}'), "config.json was changed"),
    "tokenizer": (lambda out: (out / "tokenizer.json").write_text("{}"), "tokenizer.json was changed"),
    "card": (lambda out: (out / "README.md").write_text("x"), "README.md was changed"),
    "index": (
        lambda out: (out / "model.safetensors.index.json").write_text("{}"),
        "model.safetensors.index.json was changed",
    ),
    "a file more": (lambda out: (out / "modeling.py").write_text("x"), "modeling.py was added"),
    "weights more": (lambda out: shutil.copy(out / FIRST, out / "model.safetensors"), "model.safetensors was added"),
    "a file in a folder more": (
        lambda out: ((out / "code").mkdir(), (out / "code" / "x.py").write_text("x")),
        "code/x.py was added",
    ),
    "no config": (lambda out: (out / "config.json").unlink(), "config.json is missing"),
    "no shard": (lambda out: (out / FIRST).unlink(), f"{FIRST} is missing"),
    "no index": (lambda out: (out / "model.safetensors.index.json").unlink(), "index.json is missing"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_verify_names_what_changed_in_a_folder(folder, tmp_path, case):
    out = tmp_path / "here" / "out"
    shutil.copytree(folder / "out", out)
    for name in ("other", "base"):
        shutil.copytree(folder / name, tmp_path / "here" / name)
    shutil.copy(folder / "one.safetensors", tmp_path / "here")
    verify_model(out)
    change, message = CHANGES[case]
    change(out)
    with pytest.raises(InputError) as caught:
        verify_model(out)
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(out) in str(caught.value)


@pytest.mark.parametrize("change", [swap(None), swap("data_offsets"), reshape, as_integers])
def test_verify_names_what_changed_in_a_file(folder, tmp_path, change):
    shutil.copy(folder / "one.safetensors", tmp_path / "o.safetensors")
    assert verify_model(tmp_path / "o.safetensors").count == 2
    rewrite_header(tmp_path / "o.safetensors", change)
    with pytest.raises(InputError, match=r"o\.safetensors: names, dtypes or shapes of its tensors were changed"):
        verify_model(tmp_path / "o.safetensors")


def test_several_changes_are_all_named(folder, tmp_path):
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not what its record says, in 2 places:") as caught:
        verify_model(tmp_path / "out")
    assert str(caught.value).splitlines()[1:] == ["  config.json is missing", "  tokenizer.json was changed"]


@pytest.mark.parametrize("leaves", [1, 2])
def test_a_record_of_before_this_hash_is_still_verified(tmp_path, leaves):
    """sha256-tree over all that follows the header, leaves of 16 MiB, made by hand."""
    tensor = torch.arange(leaves * 2**22 - 5, dtype=torch.int32).float()
    data = tensor.numpy().tobytes()
    digests = [hashlib.sha256(data[at : at + 2**24]).digest() for at in range(0, len(data), 2**24)]
    assert len(digests) == leaves
    root = hashlib.sha256(len(data).to_bytes(8, "little") + b"".join(digests)).hexdigest()
    record = json.dumps({"version": "0.0.9", "method": "consensus", "data": f"sha256-tree:{root}"})
    for place in (tmp_path / "old.safetensors", tmp_path / "old" / "model.safetensors"):
        place.parent.mkdir(exist_ok=True)
        write_state_dict(place, {"w": tensor}, {"format": "pt", "negmerge": record})
        shown = place if place.parent == tmp_path else place.parent
        assert verify_model(shown).count == 1
        raw = bytearray(place.read_bytes())
        raw[-1] ^= 1
        place.write_bytes(raw)
        with pytest.raises(InputError, match="it was changed"):
            verify_model(shown)


@pytest.mark.parametrize("weights", ["x", {"model.safetensors": "x"}])
def test_a_record_that_is_not_whole_is_refused(tmp_path, weights):
    record = json.dumps({"weights": weights, "beside": {}})
    write_state_dict(tmp_path / "model.safetensors", {"w": torch.zeros(3)}, {"negmerge": record})
    with pytest.raises(InputError, match="carries no whole record of negmerge"):
        verify_model(tmp_path)


def test_verify_as_json(folder, capfd):
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(folder / "out"), "--json"])
    facts = json.loads(capfd.readouterr()[0])
    assert stop.value.code == 0 and facts["path"] == str(folder / "out") and facts["hashes"] == 8
    files = sorted(path for path in (folder / "out").iterdir())
    assert facts["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("out", ["o.safetensors", "out"])
def test_an_input_that_is_written_to_meanwhile_is_refused(pool, tmp_path, hashed, out):
    base, members = pool
    for file in (base, members[1]):
        before = file.stat()

        def touch(_, file=file, before=before):
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))

        with pytest.raises(InputError, match=rf"{file.name} changed while it was read; merge again"):
            merge_checkpoints(base, members, tmp_path / out, hash_inputs=hashed, on_event=touch)
        assert not (tmp_path / out).exists()
    merge_checkpoints(base, members, tmp_path / out, hash_inputs=hashed)


def test_an_input_that_is_replaced_meanwhile_is_what_was_opened(pool, tmp_path):
    """Another file under the name of a member: the merge reads and records the one that it holds open."""
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "a.safetensors")
    write_state_dict(tmp_path / "new.safetensors", make_state(7))

    def replace(_):
        if (tmp_path / "new.safetensors").exists():
            (tmp_path / "new.safetensors").rename(members[0])

    merge_checkpoints(base, members, tmp_path / "b.safetensors", on_event=replace)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.fixture
def cached(pool, tmp_path):
    """A cache of the hub with two repositories, as its client lays it out: links into a folder of blobs."""

    def add(repository, source, commit):
        place = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        (place / "blobs").mkdir(parents=True)
        (place / "snapshots" / commit).mkdir(parents=True)
        blob = place / "blobs" / hashlib.sha256(source.read_bytes()).hexdigest()
        shutil.copy(source, blob)
        file = place / "snapshots" / commit / "model.safetensors"
        file.symlink_to(Path("..", "..", "blobs", blob.name))
        return file

    return add("owner/tiny", pool[0], "c" * 40), add("other-owner/tuned.v2", pool[1][0], "d" * 40)


def test_inputs_from_a_cache_of_the_hub_are_named_by_repository_and_commit(cached, tmp_path):
    base, member = cached
    names = [f"owner/tiny@{'c' * 40}", f"other-owner/tuned.v2@{'d' * 40}"]
    (tmp_path / "folder").symlink_to(base.parent)
    (tmp_path / "member.safetensors").symlink_to(member)
    given = [
        (base, member),
        (base.parent, member.parent),
        (tmp_path / "folder", tmp_path / "member.safetensors"),
        (tmp_path / "folder" / "model.safetensors", Path(os.path.relpath(member))),
    ]
    for i, (a, b) in enumerate(given):
        merge_checkpoints(a, [b], tmp_path / f"{i}.safetensors")
        record = read_record(tmp_path / f"{i}.safetensors")
        assert [record["base"]["name"], record["members"][0]["name"]] == names, (a, b)
