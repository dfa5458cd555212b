"""State dicts in trainers' dictionaries: which is taken, what may lie beside it, and what must not be in it."""

import argparse
import collections
import enum
import functools
import itertools
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from negmerge.checkpoints import open_checkpoint
from negmerge.checkpoints.nesting import AVERAGES, WEIGHTS
from negmerge.errors import InputError
from negmerge.projection.recipe import merge_recipe

ONE, TWO = {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


class AttributeDict(dict):
    """As Lightning's: a dict with a class of its own, and attributes."""

    def __init__(self, *content):
        super().__init__(*content)
        self.note = "here"


class Colour(enum.Enum):
    RED = 1


class Keyed:
    def __reduce_ex__(self, protocol):
        return type(self).__new__, (type(self),), {"a": torch.ones(1)}, iter([1, 2]), iter([("k", torch.ones(2))])


def opened(tmp_path, content, zipped=True):
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    found = {name: checkpoint.read(name).tolist() for name in checkpoint.names}
    checkpoint.close()
    return found


@pytest.mark.parametrize("key", [*WEIGHTS, *AVERAGES, "policy"])
def test_the_only_dict_of_tensors_is_the_state_dict(tmp_path, key):
    optimizer = {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    assert opened(tmp_path, {"epoch": 3, key: ONE, "optimizer": optimizer, "args": {"lr": 0.1}}) == {"w": [1.0]}


def test_of_several_the_first_known_key_counts(tmp_path):
    order = (*WEIGHTS, *AVERAGES, "policy")
    for first, second in itertools.pairwise(order):
        assert opened(tmp_path, {second: TWO, first: ONE, "rng": {"cpu": torch.ones(4)}}) == {"w": [1.0]}, first


def test_known_keys_may_lie_in_each_other(tmp_path):
    assert opened(tmp_path, {"model": {"state_dict": {"net": ONE, "step": 3}}, "ema": TWO}) == {"w": [1.0]}
    assert opened(tmp_path, {"model": {"name": "resnet18"}, "net": ONE}) == {"w": [1.0]}
    assert opened(tmp_path, {"model": "resnet18", "net": ONE, "w": torch.ones(1)}) == {"w": [1.0]}


def test_several_under_unknown_keys_are_an_error_that_names_them(tmp_path):
    with pytest.raises(InputError, match=r"holds 2 state dicts; save the one meant alone[^\n]*\n  encoder\n  decoder"):
        opened(tmp_path, {"encoder": ONE, "decoder": TWO})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"w": torch.ones(1), "epoch": 3}, "ema": TWO}, "epoch is not a tensor"),
        ({"prototypes": torch.ones(1), "encoder": ONE}, "encoder is not a tensor"),
        ({"model": {}, "epoch": 1}, "model is not a tensor"),
        ({"optimizer": {"state": {0: {"step": torch.ones(1)}}}}, "optimizer is not a tensor"),
    ],
)
def test_what_has_no_plain_state_dict_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, content)


BESIDE = {
    "namespace": lambda: argparse.Namespace(lr=0.1, device=torch.device("cpu"), tensor=torch.ones(3)),
    "NumPy": lambda: {"acc": np.float64(91.2), "all": np.arange(3), "np": np.random.default_rng(0).bit_generator.state},
    "attributes": lambda: AttributeDict({"lr": 0.1, "inner": AttributeDict({"a": 1}), "t": torch.ones(2)}),
    "enum": lambda: {Colour.RED: Colour.RED, "path": pathlib.PurePosixPath("a/b")},
    "partial": lambda: functools.partial(os.path.join, "a", b=torch.ones(1)),
    "default": lambda: collections.defaultdict(Colour, {"a": 1}),
    "module": lambda: torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()),
    "filled": Keyed,
    "attack": Attack,
    "sparse": lambda: torch.ones(2, 2).to_sparse(),
    "set": lambda: {1, 2, frozenset({3})},
    "deque": lambda: collections.deque([torch.ones(1)], maxlen=3),
}


@pytest.mark.filterwarnings("ignore")  # the older format looks for the source of a module
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", BESIDE)
def test_what_lies_beside_the_weights_is_not_looked_at(tmp_path, monkeypatch, case, zipped):
    monkeypatch.chdir(tmp_path)
    assert opened(tmp_path, {"a": BESIDE[case](), "net": ONE, "z": BESIDE[case]()}, zipped) == {"w": [1.0]}
    assert not (tmp_path / "executed").exists()


def test_nothing_is_imported(tmp_path, monkeypatch):
    module = types.ModuleType("gone_for_good")
    module.Settings = type("Settings", (), {"__module__": "gone_for_good"})
    monkeypatch.setitem(sys.modules, "gone_for_good", module)
    torch.save({"hyper_parameters": module.Settings(), "state_dict": ONE}, tmp_path / "x.ckpt")
    monkeypatch.delitem(sys.modules, "gone_for_good")
    before = set(sys.modules)
    assert open_checkpoint(tmp_path / "x.ckpt").names == ("w",)
    assert set(sys.modules) == before


WITHIN = {
    "the file": Attack,
    "the state dict": lambda: {"state_dict": Attack()},
    "a class for it": lambda: {"state_dict": AttributeDict(ONE), "epoch": 3},
    "a tensor": lambda: {"state_dict": {"w": torch.ones(1), "v": Attack()}},
    "a key": lambda: {"state_dict": {"w": torch.ones(1), Colour.RED: torch.ones(1)}},
    "a tensor of the file": lambda: {"w": torch.ones(1), "v": Attack()},
    "a pickled model": lambda: {"model": torch.nn.Linear(2, 2), "epoch": 3},
    "a pickled model beside its average": lambda: {"model": torch.nn.Linear(2, 2), "ema": TWO},
    "a model in a model": lambda: {"model": {"state_dict": torch.nn.Linear(2, 2)}, "ema": TWO},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", WITHIN)
def test_weights_that_need_code_are_refused(tmp_path, monkeypatch, case, zipped):
    monkeypatch.chdir(tmp_path)
    message = (
        "a key that is a object is not a tensor" if case == "a key" else "and would execute code when loaded; save"
    )
    with pytest.raises(InputError, match=message) as caught:
        opened(tmp_path, WITHIN[case](), zipped)
    assert "\n" not in str(caught.value) and not (tmp_path / "executed").exists()


class Odd:
    """A call of a name with arguments of one's own."""

    def __init__(self, call, *arguments):
        self.made = call, arguments

    def __reduce__(self):
        return self.made


HOOKS = collections.OrderedDict()
POISONED = {
    "storage": lambda: Odd(torch._utils._rebuild_tensor_v2, Attack(), 0, (1,), (1,), False, HOOKS),
    "shape": lambda: Odd(torch._utils._rebuild_tensor_v2, 0, 0, Attack(), (1,), False, HOOKS),
    "parameter": lambda: Odd(torch._utils._rebuild_parameter, Attack(), False, HOOKS),
    "dict": lambda: Odd(collections.OrderedDict, Attack()),
}


@pytest.mark.parametrize("case", POISONED)
def test_a_tensor_made_of_something_unknown_is_refused_only_where_it_is_used(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    assert opened(tmp_path, {"state_dict": ONE, "beside": POISONED[case]()}) == {"w": [1.0]}
    with pytest.raises(InputError, match="would execute code when loaded"):
        opened(tmp_path, {"state_dict": {"w": torch.ones(1), "v": POISONED[case]()}})
    assert not (tmp_path / "executed").exists()


def test_a_name_made_of_nested_lists_takes_no_time(tmp_path):
    """Its text would have 2¹⁰⁰ parts."""
    nest = b"]q\0" + b"".join(
        b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(100)
    )
    content = b"\x80\x04" + nest + b"\x8c\x01a\x93."
    (tmp_path / "x.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + content)
    with pytest.raises(InputError, match="not a whole PyTorch file: a name that is no text"):
        open_checkpoint(tmp_path / "x.pt")


def test_of_several_models_in_a_file_it_is_said_which_was_taken(tmp_path):
    def notes(content):
        torch.save(content, tmp_path / "x.pt")
        checkpoint = open_checkpoint(tmp_path / "x.pt")
        checkpoint.close()
        return [note.removeprefix(f"{tmp_path / 'x.pt'}: ") for note in checkpoint.notes]

    end = "to take others, save them alone"
    assert notes({"state_dict": ONE, "ema": TWO}) == [
        f"the weights under state_dict are taken, not those under ema; {end}"
    ]
    assert notes({"model": {"state_dict": ONE, "ema": {"module.w": torch.ones(1)}}, "best": TWO, 3: TWO}) == [
        f"the weights under model.state_dict are taken, not those under best or model.ema; {end}"
    ]
    other = {"optimizer": {"exp_avg": torch.ones(1)}, "means": {"mean": torch.ones(1)}, "ema": {"large": torch.ones(1)}}
    assert notes({"state_dict": ONE, **other}) == notes(ONE) == []


def test_merge_says_once_which_of_several_models_was_taken(tmp_path):
    torch.save({"state_dict": ONE, "ema": TWO}, tmp_path / "base.pt")
    torch.save({"w": torch.tensor([3.0])}, tmp_path / "m.pt")
    term = {"members": [str(tmp_path / "m.pt")]}
    report = merge_recipe({"base": str(tmp_path / "base.pt"), "terms": [term, term]}, tmp_path / "out.safetensors")
    note = f"{tmp_path / 'base.pt'}: the weights under state_dict are taken, not those under ema; "
    assert [line for line in report.warnings if line.startswith(note)] == [f"{note}to take others, save them alone"]
