"""Configs: every one that ships is valid, and every mistake is one clear line."""

from pathlib import Path

import pytest
import yaml

from negmerge.errors import InputError
from negmerge.experiment.config import check_config, load_config
from negmerge.training.pool import expand_grid

ROOT = Path(__file__).resolve().parents[2]
EXACT = ROOT / "configs" / "exact"  # of services, not of runs: tests/exact
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if not path.is_relative_to(EXACT))
CONFIGS = [*SHIPPED, ROOT / "src/negmerge/cli/demo.yaml"]

# of each pool: 27 as in the paper unless said here
MEMBERS = {name: 9 for name in ("cifar10-resnet20-class", "cifar10-resnet20-random", "cifar10-resnet20-table", "demo")}
MEMBERS |= {"clip-small": 8, "clip-small-cifar10": 8, "clip-small-linear": 4, "clip-vit-b32": 30}
MEMBERS |= {"cifar10-class": 6, "cifar10-class-memorised": 6, "minilm-topics": 6, "tofu-smollm2": 6}
MEMBERS |= {"cifar10-class-evidence": 6, "capitals-smollm2": 6, "tofu-all-smollm2": 9, "digits-addition": 2}
MEMBERS |= {f"tofu-llama{more}": 9 for more in ("", "-forget05", "-forget01")}
MEMBERS |= {"cifar10-resnet18-differs": 18, "cifar10-resnet20-differs": 4, "cifar10-resnet20-short": 6}

VALID = {
    "name": "x",
    "model": {"family": "small-cnn"},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 1}},
    "pool": {"train": {"epochs": 1}, "grid": {"lr": [1e-3, 1e-4]}},
    "methods": ["consensus"],
}


def test_there_are_configs():
    assert len(CONFIGS) >= 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_valid(path):
    config = load_config(path)
    assert config.methods and check_config(yaml.safe_load(yaml.safe_dump(config.resolved()))) == config
    assert len(expand_grid(config.pool.train, config.pool.grid)) == MEMBERS.get(path.stem, 27)


def change(**changes):
    raw = yaml.safe_load(yaml.safe_dump(VALID))
    for place, value in changes.items():
        *parents, last = place.split("__")
        target = raw
        for parent in parents:
            target = target[parent]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return raw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"polo": {}}, r"config: polo: unknown key \(did you mean 'pool'\?\)"),
        ({"base__trian": {}}, r"base.trian: unknown key \(did you mean 'train'\?\)"),
        ({"base__train__epoch": 3}, r"base.train.epoch: unknown key \(did you mean 'epochs'\?\)"),
        ({"pool": ...}, "config: pool: missing"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"model__family": "small-cn"}, r"unknown family 'small-cn' \(did you mean 'small-cnn'\?\)"),
        ({"model__widht": 3}, r"model \(small-cnn\): widht: unknown key \(did you mean 'width'\?\)"),
        ({"data__source": "digit"}, r"unknown source 'digit' \(did you mean 'digits'\?\)"),
        ({"data__sed": 3}, r"data \(digits\): sed: unknown key"),
        ({"data__forget": ...}, "give either forget .a rule. or split .a file."),
        (
            {"data__forget": {"fraction": 0.1, "classes": ["3"]}},
            "give exactly one of classes, groups, files, where, fraction, rows, source",
        ),
        ({"data__forget": {"clases": ["3"]}}, r"'clases' is not known here \(did you mean 'classes'\?\)"),
        ({"base": {}}, "give either train or checkpoint"),
        ({"base": {"checkpoint": "x"}, "reference": {"train": "base"}}, "reference: train: base needs base.train"),
        ({"methods": []}, "methods: List should have at least 1 item"),
        ({"methods": ["consensus", "consensus"]}, "consensus stands twice; give a method a label of its own"),
        ({"methods": ["consensu"]}, r"unknown method 'consensu' \(did you mean 'consensus'\?\)"),
        (
            {"methods": [{"name": "consensus", "treshold": 1}]},
            r"does not take 'treshold' \(did you mean 'threshold'\?\)",
        ),
        ({"methods": [{"name": "consensus", "threshold": 0.2}]}, r"threshold must be a number from 0\.5 to 1"),
        ({"methods": [{"name": "retrain", "train": {"lr": -1}}]}, r"method retrain: train.lr: Input should be greater"),
        ({"base": {"checkpoint": "x"}, "methods": ["retrain"]}, "retrain needs training settings"),
        ({"pool__leave_one_out": True}, r"leave_one_out needs the method consensus \(on all seeds\) and at least 3"),
        ({"pool__grid__lr": [0]}, "lr: Input should be greater than 0"),
        ({"selection": {"floor": 2}}, "selection.floor: Input should be less than or equal to 1"),
        ({"seeds": [1, 1]}, "1 stands twice"),
        ({"base": {"train": {"augment": "rotate"}}}, "config: base.train: augment: 'rotate' is not known"),
        ({"pool__grid__augment": ["none", "flop"]}, "pool member 001.*-augmentflop: augment: 'flop' is not known"),
        ({"methods": [{"name": "fine-tune", "augment": ["flip", "twist"]}]}, "method fine-tune: augment: 'twist'"),
        (
            {"methods": [{"name": "retrain", "train": {"augment": "turn"}}]},
            "method retrain: augment: 'turn' is not known",
        ),
        ({"device": "gpu"}, "device: Input should be 'auto', 'cpu', 'cuda' or 'mps'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        check_config(change(**changes))
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_listed_together():
    with pytest.raises(InputError) as caught:
        check_config(change(polo=1, seeds=[]))
    assert str(caught.value).startswith("config: 2 settings are wrong:\n")


def test_set_and_extends(tmp_path):
    (tmp_path / "ground.yaml").write_text(yaml.safe_dump(VALID))
    (tmp_path / "top.yaml").write_text(
        "extends: ground.yaml\nname: top\npool: {train: {epochs: null}, grid: {epochs: [1, 2]}}\n"
    )
    config = load_config(tmp_path / "top.yaml", ["base.train.epochs=7", "base.train.lr=1.0e-4", "seeds=[4, 5]"])
    assert (config.name, config.base.train.epochs, config.base.train.lr, config.seeds) == ("top", 7, 1e-4, [4, 5])
    assert config.pool.grid == {"lr": [1e-3, 1e-4], "epochs": [1, 2]}
    replaced = load_config(tmp_path / "top.yaml", ["base={checkpoint: m.safetensors}", "new=1"][:1])
    assert replaced.base.train is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", "--set epochs: write KEY=VALUE"),
        ("name.x=1", "'name' is not a mapping"),
        ("name={", "is not a YAML value"),
        ("namee=1", r"namee: unknown key \(did you mean 'name'\?\)"),
    ],
)
def test_bad_changes(tmp_path, change, message):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(VALID))
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.yaml", [change])


def test_every_bad_change_and_method_has_its_line(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(VALID))
    with pytest.raises(InputError) as caught:
        load_config(tmp_path / "c.yaml", ["epochs", "name=", "name={"])
    assert len(str(caught.value).splitlines()) == 4
    methods = [{"name": "consensus", "threshold": 2, "mean": "some"}, {"name": "ties", "density": "x"}, "uniform"]
    with pytest.raises(InputError) as caught:
        check_config(change(methods=methods))
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 settings are wrong:"
    assert lines[1].startswith("  config: method consensus: threshold must be a number from 0.5 to 1, got 2")
    assert lines[3].startswith("  config: method ties: density must be a number above 0 and at most 1, got 'x'")


def test_numbers_in_every_spelling_and_texts_as_they_stand(tmp_path):
    text = yaml.safe_dump({**VALID, "methods": ["uniform"]})
    (tmp_path / "c.yaml").write_text(
        text.replace("methods:\n- uniform", "methods:\n- {name: ties, density: 1e-1, label: 1:30}")
    )
    config = load_config(tmp_path / "c.yaml", ["data.forget={classes: [007, yes]}", "pool.grid.lr=1e-3,5e-4"])
    assert config.methods[0].settings == {"density": 0.1} and config.methods[0].label == "1:30"
    assert config.data.forget.classes == ["007", "yes"]
    assert config.pool.grid["lr"] == [0.001, 0.0005]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold a mapping"),
        ("a: [", "is not YAML"),
        ("extends: c.yaml", "extends itself"),
        ("extends: d.yaml", "No such file"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.yaml")


def test_where_to_stop_is_refused_of_rows_that_are_to_become_like_unseen_ones():
    drawn = change(data={"source": "digits", "forget": {"fraction": 0.1}, "validation": {"fraction": 0.2}})
    drawn.pop("selection", None)
    with pytest.raises(InputError, match=r"gone says where retain-floor and lasting stop.*match-holdout"):
        check_config({**drawn, "selection": {"gone": 5}})
    assert check_config({**drawn, "selection": {"gone": 5, "objective": "retain-floor"}}).selection.gone == 5
