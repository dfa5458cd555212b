"""The command line: exit codes, one line on stderr, JSON, and a quick start."""

import hashlib
import json
import subprocess
import sys
import time

import pytest
import yaml
from safetensors.torch import load_file

from negmerge.checkpoints import write_state_dict
from negmerge.cli import main
from negmerge.tasks.image_classification.family import family_of
from pools import load_record


def test_merge_and_its_json(negmerge, pool, tmp_path):
    base, members = pool
    code, out, _ = negmerge("merge", base, *members, "-o", tmp_path / "o.safetensors", "--json")
    facts = json.loads(out)
    assert code == 0
    assert list(facts) == [
        "output", "method", "members", "elements", "merged_elements", "kept", "common_elements", "common_kept",
        "consensus", "alpha", "seconds", "bytes_read", "peak_rss", "left_behind",
        "changed", "changed_share", "rounding_error", "step_over_base", "warnings",
    ]  # fmt: skip
    assert facts["consensus"] == facts["kept"] / facts["merged_elements"]
    assert facts["bytes_read"] > 0 and facts["peak_rss"] > 2**20


def test_merge_in_words(negmerge, pool, tmp_path):
    base, members = pool
    code, out, _ = negmerge("merge", base, *members, "-o", tmp_path / "o.safetensors", "--threshold", "0.8", "--add")
    assert code == 0 and "consensus of 5 member(s), α = 1, added" in out and "kept" in out


def test_options_reach_the_method(negmerge, pool, tmp_path):
    base, members = pool
    negmerge(
        "merge",
        base,
        *members,
        "-o",
        tmp_path / "a.safetensors",
        "--threshold",
        0.6,
        "--mean",
        "agreeing",
        "--zeros",
        "abstain",
    )
    negmerge(
        "merge",
        base,
        *members,
        "-o",
        tmp_path / "b.safetensors",
        "--set",
        "threshold=0.6",
        "--set",
        "mean=agreeing",
        "--set",
        "zeros=abstain",
    )
    record = load_record(tmp_path / "a.safetensors")
    assert record["settings"] == {"threshold": 0.6, "mean": "agreeing", "zeros": "abstain"}
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alpha", "nan"], "alpha must be a finite number, got 'nan'"),
        (["--threshold", "0.3"], "threshold must be a number from 0.5 to 1, got 0.3"),
        (["--method", "tie"], "unknown method 'tie'"),
        (["--set", "density"], "--set density: write KEY=VALUE"),
        (["--set", "[x]=1"], "write KEY=VALUE or KEY[REGEX]=VALUE"),
        (["--set", "threshold[nothing]=0.6"], "threshold[nothing] matches none of the 8 merged names"),
        (["--seed", "3"], "method consensus: it draws nothing"),
        (["--max-shard-size", "1GB"], "is one file, which has no shards"),
        (["--set", "density=0.2"], "does not take 'density'"),
        (["--set", "threshold=0.6", "--threshold", "0.6"], "threshold is given twice"),
        (["--set", "threshold=yes"], "threshold must be a number from 0.5 to 1, got 'yes': share of the members"),
        (["--threshold", "yes"], "threshold must be a number from 0.5 to 1, got 'yes'"),
        (["--threshold", ""], "threshold must be a number from 0.5 to 1, got ''"),
        (["--alpha", "["], "alpha must be a finite number, got '['"),
        (["--set", "threshold=0,8"], "threshold must be a number from 0.5 to 1, got [0, 8]"),
        (["--set", "threshold="], "--set threshold=: the value is missing"),
        (["--seed", "text"], "seed must be a whole number, got 'text'"),
        (["--alpha", "1:30"], "alpha must be a finite number, got '1:30'"),
        (["--workers", "0"], "workers must be a whole number from 1 on, got 0"),
        (["--as-adapter", "0"], "rank must be a whole number from 1 on, got 0: rank of the adapter that --as-adapter"),
        (["--device", "gpu"], "--device gpu: choose cpu, cuda, cuda:NUMBER or mps"),
        (["--method", "dare", "--set", "rescale=on"], "rescale must be true or false, got 'on'"),
    ],
)
def test_a_wrong_request_exits_2_with_one_line(negmerge, pool, tmp_path, words, message):
    base, members = pool
    code, out, err = negmerge("merge", base, *members, "-o", tmp_path / "o.safetensors", *words)
    assert code == 2 and out == "" and message in err
    assert err.startswith("negmerge: ") and err.count("\n") == 1
    assert not (tmp_path / "o.safetensors").exists()


def test_all_mistakes_of_a_request_come_together(negmerge, pool, tmp_path):
    base, members = pool
    words = ["--method", "ties", "--set", "density=on", "--set", "x", "--alpha", "much", "--dtype", "int8"]
    code, out, err = negmerge("merge", base, *members, "-o", tmp_path / "o.safetensors", *words)
    assert code == 2 and out == ""
    lines = err.splitlines()
    assert lines[0] == "negmerge: 4 settings are wrong:" and len(lines) == 5
    for words in ("--set x: write", "alpha must be", "dtype must be", "density must be a number above 0"):
        assert sum(words in line for line in lines) == 1


@pytest.mark.parametrize(
    ("method", "pair", "value"),
    [
        ("ties", "density=1e-1", 0.1),
        ("consensus", "threshold=8e-1", 0.8),
        ("consensus", "threshold=1", 1.0),
        ("ties", "density=.5", 0.5),
        ("task-arithmetic", "weights=1,.5,-1e-1,0,2", [1.0, 0.5, -0.1, 0.0, 2.0]),
        ("task-arithmetic", "weights=[1, .5, -1e-1, 0, 2]", [1.0, 0.5, -0.1, 0.0, 2.0]),
    ],
)
def test_numbers_in_every_spelling(negmerge, pool, tmp_path, method, pair, value):
    base, members = pool
    words = ["--method", method, "--set", pair, "--alpha", "5e-1"]
    code, _, err = negmerge("merge", base, *members, "-o", tmp_path / "o.safetensors", *words)
    assert code == 0, err
    record = load_record(tmp_path / "o.safetensors")
    assert record["settings"] == {pair.partition("=")[0]: value} and record["alpha"] == 0.5


def test_every_merge_method_is_a_command(negmerge, pool, tmp_path):
    base, members = pool
    code, out, _ = negmerge("list", "methods")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines() if "  merge   " in line]
    assert len(names) == 15
    for name in names:
        weights = ["--set", "weights=[1, 0.5, 0.2, 0.2, -0.3]"] if name == "task-arithmetic" else []
        code, out, err = negmerge("merge", base, *members, "-o", tmp_path / name, "--method", name, *weights, "--json")
        assert code == 0 and json.loads(out)["method"] == name, err


def test_settings_for_some_tensors_seed_and_shards(negmerge, pool, tmp_path):
    base, members = pool
    words = ["--method", "dare", "--set", "density=0.5", "--set", "density[^(stem|head)=?.*]=1.0", "--seed", "7"]
    code, out, _ = negmerge("merge", base, *members, "-o", tmp_path / "o", *words, "--max-shard-size", "100", "--json")
    assert code == 0 and 0.5 < json.loads(out)["consensus"] <= 1.0
    assert len(list((tmp_path / "o").glob("model-*-of-*.safetensors"))) > 3
    card = (tmp_path / "o" / "README.md").read_text()
    assert "density[^(stem|head)=?.*] = 1.0" in card and "seed = 7" in card


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


@pytest.mark.parametrize("kind", ["methods", "sources", "families"])
def test_list(negmerge, kind):
    from negmerge import registry

    code, out, _ = negmerge("list", kind)
    assert code == 0
    for name in registry.names(kind):
        assert any(line.startswith(name) for line in out.splitlines())


def test_list_says_what_a_named_data_set_is_made_of(negmerge):
    _, out, _ = negmerge("list", "sources")
    lines = [line.strip() for line in out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("svhn "))
    assert lines[start + 1 : start + 5] == [
        "splits train=train, test=test; columns image=image, label=label; configuration cropped_digits",
        "classes: 0 | 1 | 2 | 3 | …",
        'templates: a photo of the number: "{}".',
        "validation: a seeded 10 % of the train rows, at most 5,000, unless data.validation says otherwise",
    ]
    assert "splits train=train, test=validation; columns image=image, label=label" in lines
    assert "classes: worded from the data set's own names" in lines and any("image=img" in line for line in lines)


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


def test_module_and_output_agree(pool, tmp_path):
    base, members = pool
    words = ["merge", str(base), *map(str, members), "-o", str(tmp_path / "o.safetensors")]
    python = [sys.executable, "-X", "importtime"]
    done = subprocess.run([*python, "-m", "negmerge", *words], capture_output=True, text=True, check=True)
    assert "kept" in done.stdout and len(load_file(tmp_path / "o.safetensors")) == 12
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "numba.np.arraymath" in imported and not imported & {"transformers", "scipy.linalg"}


@pytest.mark.filterwarnings("ignore")
def test_merge_writes_an_adapter(negmerge, tmp_path):
    adapters = pytest.importorskip("adapters")
    model = adapters.llama()
    model.save_pretrained(tmp_path / "base")
    members = [tmp_path / f"a{i}" for i in range(2)]
    for i, member in enumerate(members):
        adapters.adapted(member, model, seed=i, target_modules=["q_proj"])
    words = ["merge", tmp_path / "base", *members, "-o", tmp_path / "one", "--overwrite", "--as-adapter"]
    code, out, _ = negmerge(*words, 2, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["adapter_rank"] == 2 and 0 < facts["adapter_error"] < 1
    assert negmerge("verify", tmp_path / "one")[0] == 0
    assert "rank 3, which leaves out" in negmerge(*words, 3)[1]
    code, _, err = negmerge(*words, 3, "--dtype", "float16")
    assert code == 2 and "leave --dtype and --max-shard-size out" in err


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


def test_list_shows_settings(negmerge):
    code, out, _ = negmerge("list", "sources")
    assert code == 0 and "path (needed): folder with train/ and test/" in out and "test_fraction (0.2)" in out
    code, out, _ = negmerge("list", "families")
    assert "width (32): channels of the first layer" in out
