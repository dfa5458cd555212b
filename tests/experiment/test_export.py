"""Exporting a row of a finished run: what is in the folder and what is not, and what is refused."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import negmerge
from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.cli import main
from negmerge.errors import InputError, NegmergeError
from negmerge.evidence.restoring import restore, weight_files
from negmerge.experiment.config import check_config
from negmerge.experiment.exporting.export import SameAsBaseError, export
from negmerge.experiment.exporting.public import without_folders
from negmerge.experiment.pipeline import run
from negmerge.experiment.record import verify_run
from negmerge.record.statement import fact, read_statement
from negmerge.record.verifying import verify_folder

CONFIG = {
    "name": "tiny",
    "device": "cpu",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 4},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 3, "lr": 0.01, "batch_size": 64, "schedule": "one-cycle"}},
    "reference": {"train": "base"},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3], "epochs": [2]}},
    "methods": ["consensus", "uniform", "original"],
    "evidence": {"tests": ["offset", "reversibility"], "controls": 0},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "tiny"
    return place, run(check_config(CONFIG), place, command="negmerge run /home/ann/secret/tiny.yaml")


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "model"
    return export(finished[0], out), out


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_folder_holds_weights_card_record_and_page_and_verifies(finished, exported):
    place, results = finished
    done, out = exported
    assert set(content(out)) == {"model.safetensors", "README.md", "record.json", "report.html"}
    assert (out / "model.safetensors").read_bytes() == (place / "methods/consensus/model.safetensors").read_bytes()
    assert done.method == "consensus" and done.verdict == results["verdict"]["text"] and not done.signed
    assert verify_folder(out).sha256 == dict(done.sha256)
    assert verify_run(place)
    assert {"base/model.safetensors", "private/", "split.json"} <= {path for path, _ in done.left}
    statement = read_statement(out)
    sources = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    roles = [entry["annotations"]["role"] for entry in sources]
    assert roles[0] == "row" and roles.count("member") == 2 and {"base", "vector", "rows"} <= set(roles)
    listed = fact(statement, "forget")["listed"]
    assert len(listed) == results["task"]["rows"]["forget"] and set(listed[0]) == {"row", "id", "group", "hash"}


def test_the_card_is_read_by_the_hub_and_says_numbers_tests_and_limits(finished, exported):
    from huggingface_hub import ModelCard

    _, results = finished
    _, out = exported
    card = ModelCard.load(out / "README.md")
    row, base = results["methods"]["consensus"], results["base"]
    found = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert found["Forget images right"] == round(row["forget"], 4)
    assert card.data.pipeline_tag == "image-classification" and "machine-unlearning" in card.data.tags
    assert results["verdict"]["text"] in card.text and "approximate unlearning, not exact" in card.text
    line = next(line for line in card.text.splitlines() if line.startswith("| Other images right"))
    assert f"{base['retain']:.1f} (" in line and f"n = {results['task']['rows']['retain']:,}" in line
    for test in results["evidence"]["tests"]:
        assert f"| {test['name'].replace('own-rows', 'own rows')} |" in card.text
    assert "Nothing that is shipped gives the base back" in card.text and "merged.safetensors" not in card.text


def test_nothing_in_it_restores_the_base_while_the_run_does(finished, exported):
    place, results = finished
    _, out = exported
    base, model = place / "base/model.safetensors", place / "methods/consensus/model.safetensors"
    for file in weight_files(out):
        assert not restore(base, model, [file]).restores
    test = next(one for one in results["evidence"]["tests"] if one["name"] == "reversibility")
    files = {one["files"][0]: one for one in test["facts"]["files"] if len(one["files"]) == 1}
    vector = files["private/methods/consensus/merged.safetensors"]
    assert vector["factor"] == pytest.approx(results["methods"]["consensus"]["alpha"], abs=1e-4)
    assert files["base/model.safetensors"]["how"] == files["methods/original/model.safetensors"]["how"] == "copy"
    assert test["facts"]["shipped"] == [] and test["weight"] == "description"


def test_a_row_that_was_not_judged_has_no_page_to_sign(finished, tmp_path):
    done = export(finished[0], tmp_path / "out", method="uniform")
    assert set(content(done.path)) == {"model.safetensors", "README.md", "record.json"} and done.verdict is None
    assert "is on another model (row consensus), not on this" in (done.path / "README.md").read_text()


def test_no_folder_and_without_ids_no_row_is_in_it(finished, exported, tmp_path):
    place, _ = finished
    _, out = exported
    for name, data in content(out).items():
        assert b"/home/" not in data and str(place.parent).encode() not in data, name
    done = export(place, tmp_path / "bare", ids=False)
    assert set(content(done.path)) == {"model.safetensors", "README.md", "record.json"}
    rows = json.loads((place / "split.json").read_text())["forgotten"]
    for name, data in content(done.path).items():
        assert not any(row["hash"].encode() in data for row in rows) and b"class 3" not in data, name
        assert b"digits" not in data and b"split.json" not in data, name
    assert fact(read_statement(done.path), "forget") == {"kind": "class", "rows": len(rows)}
    assert "which are not named here" in (done.path / "README.md").read_text()


def test_paths_become_names_and_ids_of_the_hub_stay():
    given = {"a": ["/x/y/forget.csv", "rows/forget.csv"], "b": "owner/name", "c": {"d": "and/or it is", "e": 1}}
    assert without_folders(given) == {
        "a": ["forget.csv", "forget.csv"],
        "b": "owner/name",
        "c": {"d": "and/or it is", "e": 1},
    }
    assert without_folders("look into /home/ann/x.csv, please") == "look into …/x.csv, please"
    for path in ("/home/ann smith/own notes/x.csv", "ann smith/own notes/x.csv", "~/ann smith/x.csv"):
        assert without_folders(path) == "x.csv"
    assert without_folders("/home/ann smith/own notes") == "own notes"


def test_the_same_again_is_found_and_another_is_not_overwritten(finished, tmp_path):
    place, _ = finished
    out = tmp_path / "deep" / "model"
    export(place, out)
    before, stamp = content(out), (out / "model.safetensors").stat().st_mtime_ns
    export(place, out)
    assert content(out) == before and (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="exists; choose another OUT, or replace it with --overwrite"):
        export(place, out, method="uniform")
    (out / "README.md").write_text("changed")
    with pytest.raises(InputError, match="exists; choose another OUT"):
        export(place, out)
    export(place, out, overwrite=True)
    assert content(out) == before
    assert negmerge.export(place, tmp_path / "other").sha256 == verify_folder(out).sha256
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="was not written by negmerge, so --overwrite leaves it alone"):
        export(place, tmp_path / "mine", overwrite=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "consensos"}, r"has no row 'consensos' \(did you mean 'consensus'\?\); it has consensus, uniform"),
        ({"method": "original"}, "the row original is the base itself: what was to be forgotten is in it; choose"),
        ({"seed": 7}, "has no seed 7; it has 0"),
        ({"run": "nowhere"}, "nowhere: no such directory; give that of a finished run"),
        ({"run": "empty"}, r"has no record.json; give the directory of a finished run"),
        ({"run": "exported"}, "is an exported model; give the directory of the run that it came from"),
        ({"output": "out.safetensors"}, "is one file, an exported model is a folder"),
        ({"output": "run/private/x"}, "lies inside of the run"),
        ({"output": "run/base"}, "is a folder of the run itself"),
        ({"output": "run/seed-1"}, "is a folder of the run itself"),
        ({"output": "run"}, "holds the run"),
    ],
)
def test_what_is_refused(copied, exported, tmp_path, change, words):
    (tmp_path / "empty").mkdir()
    shutil.copytree(exported[1], tmp_path / "exported")
    given = {"run": "run", "output": "out", **change}
    places = [tmp_path / given.pop(name) for name in ("run", "output")]
    with pytest.raises(InputError, match=words):
        export(*places, **given)
    assert not (tmp_path / "out").exists() and verify_run(copied)


def test_weights_that_are_not_the_recorded_ones_are_not_shipped(copied, tmp_path):
    file = copied / "methods/consensus/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match="is not what the record says; `negmerge verify"):
        export(copied, tmp_path / "out")
    file.unlink()
    with pytest.raises(InputError, match="is gone; run `negmerge run` with the same config again"):
        export(copied, tmp_path / "out")
    (copied / "base/model.safetensors").unlink()  # without the base nothing tells but its hash
    with pytest.raises(SameAsBaseError):
        export(copied, tmp_path / "out", method="original")


def test_results_that_are_not_the_recorded_ones_are_not_on_a_card(copied, tmp_path):
    file = copied / "results.json"
    file.write_text(file.read_text().replace('"retain"', '"retain" ', 1))
    with pytest.raises(InputError, match=r"results\.json is not what the record says; `negmerge verify"):
        export(copied, tmp_path / "out")
    file.unlink()
    with pytest.raises(InputError, match=r"results\.json is gone; run `negmerge run` with the same config again"):
        export(copied, tmp_path / "out")


def test_a_folder_that_is_a_link_is_not_purged(copied, tmp_path):
    (copied / "private").rename(tmp_path / "elsewhere")
    (copied / "private").symlink_to(tmp_path / "elsewhere")
    before = (copied / "record.json").read_bytes()
    with pytest.raises(InputError, match="private is a link: what it leads to would stay"):
        export(copied, tmp_path / "out", purge=True)
    assert (copied / "record.json").read_bytes() == before and any((tmp_path / "elsewhere").iterdir())
    (copied / "private").unlink()
    (tmp_path / "elsewhere").rename(copied / "private")
    (copied / "private" / "pool").rename(tmp_path / "pool")
    (copied / "private" / "pool").symlink_to(tmp_path / "pool")
    with pytest.raises(InputError, match="private/pool is a link: what it leads to would stay"):
        export(copied, tmp_path / "out", purge=True)
    assert any((tmp_path / "pool").iterdir())


def test_a_run_with_a_folder_behind_a_link_is_recorded_verified_and_says_where_it_lies(copied, tmp_path):
    (copied / "private").rename(tmp_path / "elsewhere")
    (copied / "private").symlink_to(tmp_path / "elsewhere")
    compared = verify_run(copied)
    listed = {entry["name"]: entry["digest"] for entry in read_statement(copied)["subject"]}
    (copied / "record.json").unlink()  # the same run again writes it anew, and finds what was moved
    run(check_config(CONFIG), copied)
    assert {entry["name"]: entry["digest"] for entry in read_statement(copied)["subject"]} == listed
    assert verify_run(copied) == compared
    places = [one["path"] for one in fact(read_statement(copied), "on_disk")]
    assert places[0] == f"{(tmp_path / 'elsewhere').resolve()}/" and "base/model.safetensors" in places


def test_purging_afterwards_removes_what_restores_and_the_export_is_the_same(copied, exported, tmp_path):
    done = export(copied, tmp_path / "out", purge_base=True)
    assert {"private", "base/model.safetensors", "methods/original/model.safetensors"} <= set(done.removed)
    # Both rows subtracted the same where members agree, by different α: beside the exported one, uniform tells.
    kept = {path for path, what in done.left if "model of the row" in what}
    assert "methods/consensus/model.safetensors" in kept
    assert not (copied / "private").exists() and verify_run(copied)
    assert content(done.path) == content(exported[1])
    again = export(copied, tmp_path / "again", purge_base=True)
    assert content(again.path) == content(done.path) and again.removed == ()
    (copied / "private").mkdir()
    (copied / "private" / "left.txt").write_text("x")
    gone = fact(read_statement(copied), "gone")[0]["name"]
    (copied / gone).parent.mkdir(parents=True, exist_ok=True)
    (copied / gone).write_text("x")
    with pytest.raises(InputError, match="was to be removed and is there: do it again with --purge"):
        verify_run(copied)


@pytest.mark.heavy(5)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_file_comes_back_as_a_file_of_its_kind_with_its_names(finished, tmp_path, ending):
    state = {f"module.{name}": value for name, value in read_state_dict(finished[0] / "base/model.safetensors").items()}
    given = tmp_path / f"net{ending}"
    torch.save(state, given) if ending == ".pt" else write_state_dict(given, state)
    changes = {"base": {"checkpoint": str(given)}, "reference": "none", "methods": ["consensus"], "evidence": {}}
    run(check_config({**CONFIG, **changes}), tmp_path / "run")
    done = export(tmp_path / "run", tmp_path / "out")
    file = tmp_path / "out" / f"model{ending}"
    loaded = torch.load(file, weights_only=True) if ending == ".pt" else read_state_dict(file)
    ours = read_state_dict(tmp_path / "run/methods/consensus/model.safetensors")
    assert list(loaded) == [f"module.{name}" for name in ours]
    assert all(torch.equal(loaded[f"module.{name}"], value) for name, value in ours.items())
    assert "No test of the claim was made" in (tmp_path / "out" / "README.md").read_text() and done.verdict is None
    assert content(export(tmp_path / "run", tmp_path / "two").path) == content(done.path)
    assert any(path == str(given) and "was given" in what for path, what in done.left)


def test_from_the_command_line_with_a_signature(finished, tmp_path, capsys):
    pytest.importorskip("model_signing", reason="signatures need the extra sign: pip install 'negmerge[sign]'")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, *capsys.readouterr()

    out = tmp_path / "out"
    place, results = finished
    assert call("export", place, "-o", out)[0] == 0
    unsigned = content(out)
    code, shown, _ = call("export", place, "-o", out, "--sign-key", private)  # only the signature is missing
    assert code == 0 and "row consensus, signed" in shown and results["verdict"]["text"] in shown
    assert {name: data for name, data in content(out).items() if name != "model.sig"} == unsigned
    code, shown, _ = call("verify", out)
    assert code == 0 and "the signature was not checked: give --public-key KEY" in shown
    code, shown, _ = call("verify", out, "--public-key", public, "--json")
    assert code == 0 and json.loads(shown)["signature"] is True
    signature = (out / "model.sig").read_bytes()
    assert call("export", place, "-o", out, "--sign-key", private)[0] == 0
    assert (out / "model.sig").read_bytes() == signature
    other = tmp_path / "other.pem"
    other.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    assert call("export", place, "-o", out, "--sign-key", other)[0] == 0  # signed with what was given, not with another
    assert "the signature does not hold" in call("verify", out, "--public-key", public)[2]
    assert call("export", place, "-o", out, "--sign-key", private)[0] == 0
    record = out / "record.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
    assert call("verify", out)[0] == 0  # nobody but the signature vouches for the record
    code, _, err = call("verify", out, "--public-key", public)
    assert code == 2 and "the signature does not hold: changed: record.json" in err
    code, _, err = call("export", place, "-o", tmp_path / "new", "--sign-key", public)
    assert code == 2 and "is no private key" in err and not (tmp_path / "new").exists()


def test_without_the_package_a_signature_is_refused_before_anything_is_written(finished, tmp_path, monkeypatch):
    (tmp_path / "key.pem").write_text("x")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(InputError, match=r"signatures need the packages model-signing and pyopenssl: pip install"):
        export(finished[0], tmp_path / "out", sign_key=tmp_path / "key.pem")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_at_work_is_not_exported(copied, tmp_path):
    from negmerge.experiment.rundir import RunDir

    with RunDir(copied).lock(), pytest.raises(NegmergeError, match="another process is running here"):
        export(copied, tmp_path / "out")


@pytest.mark.heavy(60)
def test_killed_at_any_moment_the_folder_is_whole_or_absent(copied, exported, tmp_path):
    expected, draw = content(exported[1]), random.Random(0)
    code = "import sys; from negmerge import export; export(sys.argv[1], sys.argv[2], purge=True)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    for i in range(8):
        place = shutil.copytree(copied, tmp_path / f"run{i}")
        out = tmp_path / f"out{i}"
        started = subprocess.Popen([sys.executable, "-c", code, str(place), str(out)], env=environment)
        deadline, wait = time.monotonic() + 60, draw.random()
        while not list(tmp_path.glob(f".out{i}.partial")) and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(wait)
        started.send_signal(signal.SIGKILL)
        killed += started.wait() == -signal.SIGKILL
        assert not out.exists() or content(out) == expected
        assert content(export(place, out, purge=True).path) == expected
        assert not (place / "private").exists() and verify_run(place)
        assert not list(tmp_path.glob(".*.partial")) and not list(tmp_path.glob(".*.negmerge-old"))
    assert killed >= 3
