"""`negmerge merge`: what it writes, says and refuses, as words of the command line."""

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file

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
