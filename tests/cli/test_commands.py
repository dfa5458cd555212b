"""The command line: exit codes, one line on stderr, JSON, and a quick start."""

import hashlib
import json
import subprocess
import sys
import time

import pytest
import yaml

from negmerge.checkpoints import write_state_dict
from negmerge.cli import main
from negmerge.tasks.image_classification.family import family_of


def test_inspect(negmerge, pool):
    base, members = pool
    code, out, _ = negmerge("inspect", base, *members, "--json")
    assert code == 0
    assert list(json.loads(out)) == [
        "members", "elements", "consensus", "chance", "zero_share", "cosine", "cosine_to_base",
        "cosine_of_change_to_base", "size_over_base",
        "changed", "changed_share", "rounding_error", "step_over_base", "health", "advice", "warnings",
        "tensors",
    ]  # fmt: skip
    code, out, _ = negmerge("inspect", base, *members)
    assert code == 0 and "independent signs would give 6.25 %" in out and "stem.weight" in out


def test_usage_errors_exit_2(negmerge, pool):
    assert negmerge("merge", pool[0], pool[1][0])[0] == 2
    assert negmerge("merge", pool[0], "-o", "o.safetensors")[0] == 2
    assert negmerge("nonsense")[0] == 2


def test_debug_shows_the_traceback(pool):
    from negmerge.errors import InputError

    with pytest.raises(InputError):
        main(["merge", str(pool[0]), "-o", "o.safetensors", "--debug"])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ModuleNotFoundError("no", name="sklearn"),
            2,
            "needs the package sklearn: pip install 'negmerge[experiments]'",
        ),
        (OSError(28, "No space left on device", "out"), 1, "negmerge: out: No space left on device"),
        (RuntimeError("odd"), 1, "unexpected RuntimeError: odd; with --debug it shows where"),
    ],
)
def test_no_error_shows_a_traceback(negmerge, pool, monkeypatch, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("negmerge.merging.inspecting.inspect_checkpoints", fail)
    found, out, err = negmerge("inspect", pool[0], pool[1][0])
    assert found == code and message in err and err.count("\n") == 1 and out == ""


@pytest.mark.parametrize(("out", "more", "hashes"), [("o.safetensors", [], 1), ("out", [], 1), ("out", ["100"], None)])
def test_verify_a_file_a_folder_and_shards(negmerge, pool, tmp_path, out, more, hashes):
    from negmerge.merging.engine import merge_checkpoints

    base, members = pool
    place = tmp_path / out
    merge_checkpoints(base, members, place, max_shard_size=more[0] if more else None)
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    assert hashes == len(files) or (hashes is None and len(files) > 3)
    code, shown, _ = negmerge("verify", place)
    *digests, last = shown.splitlines()
    every = sorted(place.iterdir()) if place.is_dir() else [place]
    # Of each file of weights its data and its layout, of any other file all of it.
    assert code == 0 and last == f"{place}: {len(files) + len(every)} hashes are as recorded"
    assert digests == [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in every]
    data = bytearray(files[-1].read_bytes())
    data[-1] ^= 1
    files[-1].write_bytes(data)
    code, out, err = negmerge("verify", place)
    assert code == 2 and out == "" and "it was changed" in err and err.count("\n") == 1
    if len(files) > 1:
        files[0].unlink()
        code, _, err = negmerge("verify", place)
        assert code == 2 and f"{files[0].name} is missing" in err and files[-1].name in err


def test_verify_what_was_not_merged(negmerge, pool, tmp_path):
    code, _, err = negmerge("verify", pool[0])
    assert code == 2 and "carries no record" in err
    code, _, err = negmerge("verify", tmp_path / "pool")
    assert code == 2 and "carries no record" in err
    code, _, err = negmerge("verify", tmp_path / "nowhere")
    assert code == 2 and "no such file or folder" in err
    (tmp_path / "empty").mkdir()
    code, _, err = negmerge("verify", tmp_path / "empty")
    assert code == 2 and "holds no .safetensors" in err


def test_version(negmerge):
    from negmerge import __version__

    assert negmerge("--version")[:2] == (0, f"negmerge {__version__}\n")


def test_run_dry_and_wrong_configs(negmerge, tmp_path):
    config = {
        "name": "dry", "model": {"family": "small-cnn"}, "data": {"source": "digits", "forget": {"classes": ["3"]}},
        "base": {"train": {"epochs": 2}}, "pool": {"grid": {"lr": [1e-3, 1e-4]}}, "methods": ["consensus"],
    }  # fmt: skip
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(config))
    code, out, _ = negmerge("run", file, "--dry-run", "-o", tmp_path / "r", "--json")
    plan = json.loads(out)
    assert code == 0 and plan["members"] == ["000-lr0.001", "001-lr0.0001"] and plan["minutes"] > 0
    assert not (tmp_path / "r").exists()
    ways = {way["name"]: way for way in plan["ways"]}
    assert list(ways) == ["retrain", "sisa", "pool"] and ways["retrain"]["minutes"] < ways["pool"]["minutes"]
    assert ways["retrain"]["minutes"] == pytest.approx(2 * ways["retrain"]["epoch_minutes"])
    assert "no gap to Retrain" in ways["pool"]["claim"] and "held-out rows of their kind" in ways["pool"]["claim"]
    code, out, _ = negmerge("run", file, "--dry-run")
    assert code == 0 and "2 members, 1 seed(s)" in out and "minutes" in out
    assert "Should I just retrain?" in out and "just retrain." in out
    model = family_of(config["model"]["family"])
    settings = model.Settings(**{k: v for k, v in config["model"].items() if k != "family"})
    for classes, name in ((10, "fits"), (3, "other")):
        write_state_dict(tmp_path / f"{name}.safetensors", model.build(settings, classes, (1, 8, 8), 0).state_dict())
    for name, message in (("nowhere", "nowhere"), ("other", "does not fit")):  # every checkpoint is opened
        code, _, err = negmerge(
            "run", file, "--dry-run", "--set", f"base={{checkpoint: {tmp_path / name}.safetensors}}"
        )
        assert code == 2 and message in err
    given = ["--set", f"base={{checkpoint: {tmp_path / 'fits.safetensors'}}}"]
    code, out, _ = negmerge("run", file, "--dry-run", *given)
    assert code == 0 and "min an epoch" in out and "epochs over the rows that stay" in out
    code, _, err = negmerge("run", file, "--set", "pool.grid.lrr=[1]")
    assert code == 2 and "pool.grid: 'lrr' is no training setting (did you mean 'lr'?)" in err
    code, _, err = negmerge("run", file, "--executor", "ray")
    assert code == 2 and "there is only local" in err
    code, _, err = negmerge("report", tmp_path)
    assert code == 2 and "negmerge run" in err


def test_help_is_quick_and_light():
    script = (
        "import sys, negmerge, negmerge.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    took = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "negmerge", "--help"], check=True, capture_output=True)
        took.append(time.perf_counter() - started)
    assert min(took) < 2  # 0.5 s on an idle machine; this one may be busy with the other tests


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("negmerge r", {"run", "rows", "report"}),
        ("negmerge merge base --me", {"--method", "--mean"}),
        ("negmerge merge base --method con", {"consensus"}),
        ("negmerge merge base --method ties --set d", {"density="}),
        ("negmerge unlearn base --family imagenet-r", {"imagenet-resnet"}),
        ("negmerge run a.yaml --set selection.s", {"selection.search=", "selection.step="}),
        ("negmerge list text", {"text-sources", "text-families"}),
        ("negmerge run conf", set()),  # what is not answered, bash completes as a file name
    ],
)
def test_shell_completion(negmerge, monkeypatch, line, wanted):
    place = str(len(line.split()) - 1)
    for name, value in (("_NEGMERGE_COMPLETE", "complete_bash"), ("COMP_WORDS", line), ("COMP_CWORD", place)):
        monkeypatch.setenv(name, value)
    assert set(negmerge()[1].split()) == wanted


def test_what_the_shell_completes_are_keys_of_a_config():
    from negmerge.cli.completing import PARTS, TOP
    from negmerge.experiment.config import Config

    schema = Config.model_json_schema()
    defined, found = schema["$defs"], {}
    for key, field in schema["properties"].items():
        named = [one["$ref"] for one in (field, *field.get("anyOf", ())) if "$ref" in one]
        found[key] = [name for ref in named for name in defined[ref.rpartition("/")[2]].get("properties", ())]
    assert set(TOP.split()) | set(PARTS) <= set(found)
    assert [f"{part}.{key}" for part, keys in PARTS.items() for key in set(keys.split()) - set(found[part])] == []
