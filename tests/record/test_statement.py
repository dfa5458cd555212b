"""The record as a statement: what others' tools make of it, digests, and what a folder is compared with."""

import hashlib
import json
import os

import pytest

from negmerge.checkpoints import hash_file
from negmerge.errors import InputError
from negmerge.record.digests import digests_of, digests_of_all
from negmerge.record.statement import descriptor, flattened, make_statement, read_statement, with_facts
from negmerge.record.verifying import verify_folder


def statement(subject=(), kind="export", **facts):
    return make_statement(
        kind,
        subject,
        external={"command": "negmerge run x.yaml", "config": {"name": "x"}},
        internal={"seeds": [0]},
        dependencies=[descriptor("base", {"sha256": "0" * 64}, role="base", path="/models/base.pt", bytes=3)],
        versions={"negmerge": "0.1.0"},
        code=[descriptor("negmerge", {"sha256": "1" * 64})],
        metadata={"invocationId": "a", "startedOn": "2026-01-02T03:04:05Z", "finishedOn": "2026-01-02T03:05:05Z"},
        facts=facts,
    )


def folder_of(place, files, kind="export"):
    subject = []
    for name, content in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        found = digests_of(file)
        subject.append(descriptor(name, {"sha256": found.sha256}, bytes=found.bytes, tree=found.tree))
    (place / "record.json").write_text(json.dumps(statement(subject, kind)))
    return place


def test_both_digests_of_one_reading(tmp_path):
    sizes = (0, 3, 2**24, 2**24 + 1, 2**25 + 5)
    for size in sizes:
        file = tmp_path / str(size)
        file.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        found = digests_of(file)
        assert found.bytes == size
        assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert found.tree == hash_file(file)
    first = digests_of(tmp_path / str(2**24 + 1), 1000)
    assert first.sha256 == hashlib.sha256((bytes(range(256)) * 4)[:1000]).hexdigest()
    assert [one.bytes for one in digests_of_all(tmp_path / str(size) for size in sizes)] == list(sizes)
    with pytest.raises(InputError, match="became shorter while it was hashed"):
        digests_of(tmp_path / "3", 4)


def test_a_page_reads_a_statement_by_plain_keys_and_a_plain_record_as_it_is():
    whole = with_facts(
        statement([descriptor("private/pool/a", {"sha256": "3" * 64}), descriptor("r", {"sha256": "2" * 64}, bytes=7)]),
        peak_rss=9,
    )
    flat = flattened(whole)
    assert (
        flat["command"] == "negmerge run x.yaml" and flat["peak_rss"] == 9 and flat["versions"]["negmerge"] == "0.1.0"
    )
    assert flat["inputs"] == [{"path": "/models/base.pt", "bytes": 3, "hash": f"sha256:{'0' * 64}"}]
    assert flat["outputs"] == [{"path": "r", "bytes": 7, "hash": f"sha256:{'2' * 64}"}]
    assert (flat["started"], flat["finished"]) == ("2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z")
    assert flattened({"inputs": [], "outputs": []}) == {"inputs": [], "outputs": []}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"has no record.json; give the directory of a finished run, or an exported model"),
        ("{", "is damaged, or no record of negmerge"),
        ('{"format": 1, "outputs": [], "inputs": []}', "is of an older version; run `negmerge run` with the same"),
        ('{"_type": "https://in-toto.io/Statement/v1", "predicateType": "other"}', "is damaged, or no record of"),
        (json.dumps({**statement(), "subject": [{"name": "a"}]}), "is damaged, or no record of negmerge"),
    ],
)
def test_what_is_no_record_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    with pytest.raises(InputError, match=words):
        read_statement(tmp_path)


def test_a_folder_is_as_recorded_or_it_is_said_what_differs(tmp_path):
    place = folder_of(tmp_path / "out", {"model.safetensors": b"weights", "sub/vocab.txt": b"words", "README.md": b"#"})
    found = verify_folder(place)
    assert found.count == 3 and not found.signed
    assert found.sha256["sub/vocab.txt"] == hashlib.sha256(b"words").hexdigest()
    (place / "model.safetensors").write_bytes(b"Weights")
    (place / "sub/vocab.txt").unlink()
    (place / ".hidden").write_bytes(b"")
    (place / "sub/.new.partial").write_bytes(b"")
    with pytest.raises(InputError) as wrong:
        verify_folder(place)
    lines = str(wrong.value).splitlines()
    assert lines[0].endswith("4 files are not what the record says:")
    assert [line.strip() for line in lines[1:]] == [
        "model.safetensors was changed",
        "sub/vocab.txt is missing",
        ".hidden was added",
        "sub/.new.partial was added",
    ]


def test_others_read_it_as_in_toto_statement_with_slsa_provenance():
    pytest.importorskip("in_toto_attestation", reason="comes with the extra sign (model-signing)")
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    raw = statement([descriptor("model.safetensors", {"sha256": "2" * 64}, bytes=7, made_from=["base"])], peak_rss=9)
    parsed = json_format.ParseDict(raw, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    assert parsed.subject[0].digest["sha256"] == "2" * 64
    # Extensions have names of their own, and are passed over.
    provenance = json_format.ParseDict(raw["predicate"], provenance_pb2.Provenance(), ignore_unknown_fields=True)
    assert provenance.run_details.metadata.started_on.ToJsonString() == "2026-01-02T03:04:05Z"
    assert provenance.build_definition.resolved_dependencies[0].name == "base"


def test_what_stands_in_the_place_of_a_file_is_no_file(tmp_path):
    def pipe(file):
        os.mkfifo(file)

    made = [lambda file: file.symlink_to("nowhere"), lambda file: file.symlink_to(file.name), pipe]
    for i, make in enumerate(made):
        place = folder_of(tmp_path / str(i), {"model.safetensors": b"weights"})
        (place / "model.safetensors").unlink()
        make(place / "model.safetensors")
        with pytest.raises(InputError, match="1 files are not what the record says") as wrong:
            verify_folder(place)
        assert str(wrong.value).endswith("  model.safetensors is missing")


def moved_away(place, name, to):
    """Move a folder of a record, and leave a link to it in its place."""
    (place / name).rename(to)
    (place / name).symlink_to(to)


def test_a_folder_of_a_run_may_lie_behind_a_link_and_is_compared_there(tmp_path):
    files = {"results.json": b"{}", "private/pool/0/model.safetensors": b"member", "private/rows.bin": b"rows"}
    place = folder_of(tmp_path / "run", files, kind="run")
    moved_away(place, "private/pool", tmp_path / "pool")
    moved_away(place, "private", tmp_path / "elsewhere")
    found = verify_folder(place)
    assert found.count == 3 and set(found.sha256) == set(files)
    (tmp_path / "elsewhere/stranger").write_bytes(b"")
    (tmp_path / "pool/0/model.safetensors").write_bytes(b"MEMBER")
    (place / "private/back").symlink_to(place)  # no folder of the record: named, and not entered
    (place / "data").symlink_to(tmp_path)
    with pytest.raises(InputError) as wrong:
        verify_folder(place)
    assert [line.strip() for line in str(wrong.value).splitlines()[1:]] == [
        "private/pool/0/model.safetensors was changed",
        "data was added",
        "private/back was added",
        "private/stranger was added",
    ]
    (place / "private").unlink()
    (place / "private").symlink_to(place)  # it would lie in itself
    with pytest.raises(InputError, match=r"private/rows\.bin is missing"):
        verify_folder(place)


def test_what_is_shipped_lies_in_its_folder(tmp_path):
    place = folder_of(tmp_path / "out", {"model.safetensors": b"weights", "sub/vocab.txt": b"words"})
    moved_away(place, "sub", tmp_path / "elsewhere")
    with pytest.raises(InputError) as wrong:
        verify_folder(place)
    assert [line.strip() for line in str(wrong.value).splitlines()[1:]] == [
        "sub/vocab.txt is missing",
        "sub was added",
    ]


@pytest.mark.parametrize(
    "edit",
    [
        {"subject": [{"name": "../a", "digest": {}}]},
        {"subject": [{"name": "/etc/passwd", "digest": {}}]},
        {"subject": [{"name": "a", "digest": {}, "annotations": ["x"]}]},
        {"gone": 3},
        {"byproducts": [{"name": "record.json", "digest": {}}]},  # a folder that is inside of itself
        {"byproducts": [{"name": "log", "digest": {}, "annotations": {"grows": True}}]},
    ],
)
def test_an_edited_record_is_named_and_nothing_outside_is_read(tmp_path, edit):
    place = folder_of(tmp_path / "out", {"log": b"x"})
    whole = json.loads((place / "record.json").read_text())
    whole["subject"] += edit.get("subject", [])
    whole["predicate"]["runDetails"]["byproducts"] += edit.get("byproducts", [])
    whole = with_facts(whole, gone=edit["gone"]) if "gone" in edit else whole
    (place / "record.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match="is damaged, or no record of negmerge"):
        verify_folder(place)
