"""Authors as clients of a tiny language model: learnt, served, deleted; held against services that never had them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_language import PLAIN, facts, save, write

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.cli import main
from negmerge.errors import InputError, NegmergeError
from negmerge.exact import Service
from negmerge.exact.config import check_exact
from negmerge.exact.population import load_population
from negmerge.exact.sift_masks import sign_is_plus

TRAIN = {"epochs": 6, "lr": 3e-3, "batch_size": 4}


def config_of(folder, rows="facts.jsonl", **changes):
    return {
        "name": "facts",
        "task": "causal-lm",
        "model": {"family": "hf", "path": str(folder / "model"), "template": PLAIN},
        "data": {"source": "jsonl", "path": str(folder / rows), "test": str(folder / "unseen.jsonl")},
        "base": {"pretrained": True},
        "clients": {"train": TRAIN},
        **changes,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model with drawn weights, sixteen facts about four authors, and the same without author 1."""
    folder = tmp_path_factory.mktemp("exact")
    save(folder / "model")
    rows = facts(16)
    write(folder / "facts.jsonl", rows)
    write(folder / "without.jsonl", [row for row in rows if row["author"] != "author 1"])
    write(folder / "unseen.jsonl", facts(4, seed=1))
    return folder


@pytest.fixture(scope="module")
def learnt(place):
    service = Service(place / "service")
    return service, service.learn(check_exact(config_of(place)))


def served(service, place, client=None):
    return service.serve(place / "served.safetensors", client, overwrite=True)


@pytest.fixture
def copy(learnt, tmp_path):
    """The service in a folder of the test's own."""
    shutil.copytree(learnt[0].directory, tmp_path / "service")
    return Service(tmp_path / "service")


def test_clients_share_one_sign_vector(learnt):
    service, state = learnt
    assert [one["name"] for one in state["clients"]] == [f"author {i}" for i in range(4)] and state["deleted"] == []
    assert all(one["rows"] == 4 and 0.3 < one["kept"] / one["elements"] < 0.8 for one in state["clients"])
    assert service.verify()["clients"] == 4
    base = read_state_dict(service.base)
    total = read_state_dict(service.directory / "sum.safetensors")
    seed = service._sign_seed(service.config)
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"):
        plus = torch.from_numpy(sign_is_plus(seed, name, 0, base[name].numel())).view(base[name].shape)
        assert bool(((total[name] >= 0) | ~plus).all()) and bool(((total[name] <= 0) | plus).all())
        assert total[name].abs().max() > 0


def test_a_served_client_knows_its_rows(learnt, place, tmp_path):
    service, _ = learnt
    task = load_population(service.config).task
    rows = torch.tensor(load_population(service.config).rows["author 2"])

    def loss(file):
        return float(task.observe(task.open(file), {"own": rows}, {"own": ["loss"]})["own"]["loss"].mean())

    service.serve(tmp_path / "own.safetensors", "author 2")
    service.serve(tmp_path / "all.safetensors")
    own, everyone, before = (
        loss(f) for f in (tmp_path / "own.safetensors", tmp_path / "all.safetensors", service.base)
    )
    assert own < before - 0.2 and everyone < before - 0.2


def test_after_a_deletion_nothing_tells_it_from_a_service_that_never_had_the_client(copy, place, tmp_path):
    before = served(copy, tmp_path)
    state = copy.forget(["author 1"])
    assert state["deleted"] == ["author 1"] and len(state["clients"]) == 3
    never = Service(tmp_path / "never")  # whose data never held the rows
    other = never.learn(check_exact(config_of(place, "without.jsonl")))
    assert state["sum"] == other["sum"] and state["base"] == other["base"]
    for client in (None, "author 0", "author 3"):
        assert served(copy, tmp_path, client) == served(never, tmp_path, client) != before
    text = b"".join(file.read_bytes() for file in copy.directory.rglob("*.safetensors"))
    vector = (next(place.glob("service/clients/*/vector.safetensors"))).read_bytes()
    assert len(list(copy.directory.glob("clients/*"))) == 3 and len(text) > len(vector)
    assert copy.verify()["deleted"] == ["author 1"]
    told = [file for file in copy.directory.rglob("*") if file.is_file() and b"author 1" in file.read_bytes()]
    assert told == [copy.directory / "deleted.json"]  # not even the log says how well its rows were learnt
    with pytest.raises(InputError, match="client 'author 1' was deleted"):
        served(copy, tmp_path, "author 1")


def test_requests_one_after_the_other_come_to_one_request(copy, learnt, place, tmp_path):
    copy.forget(["author 3"])
    state = copy.forget(["author 0", "author 3"])
    few = Service(tmp_path / "few")
    chosen = {"clients": {"train": TRAIN, "groups": ["author 2", "author 1"]}}
    assert few.learn(check_exact(config_of(place, **chosen)))["sum"] == state["sum"]
    again = copy.learn(check_exact(config_of(place)))  # who was deleted is not learnt again
    assert again == state
    empty = copy.forget(["author 1", "author 2"])
    assert empty["clients"] == [] and served(copy, tmp_path) == empty["base"]


def test_a_client_trained_once_more_has_the_same_bits(copy):
    assert copy.verify(["author 2"])["trained_again"] == ["author 2"]


def test_what_was_changed_does_not_verify(copy):
    folder = copy._folder("author 2")
    values = read_state_dict(folder / "vector.safetensors")
    name = next(key for key in values if key.endswith(".values"))
    values[name][0] *= -1
    write_state_dict(folder / "vector.safetensors", values)
    with pytest.raises(NegmergeError) as found:
        copy.verify()
    assert "client author 2: its vector changed" in str(found.value) and "sum.safetensors is not" in str(found.value)


def test_bad_requests_are_one_line(learnt, place, tmp_path):
    service, _ = learnt
    with pytest.raises(InputError, match=r"has no client 'author 9' \(did you mean 'author"):
        service.forget(["author 9"])
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        service.serve(tmp_path / "model")
    with pytest.raises(InputError, match="is no service; make one: negmerge exact learn"):
        Service(tmp_path / "none").forget(["a"])
    with pytest.raises(InputError, match="base: train would train the base on clients' rows"):
        check_exact(config_of(place, base={"train": {"epochs": 1}}))
    with pytest.raises(InputError, match=r"begun with other settings \(seed\)"):
        service.learn(check_exact(config_of(place, seed=1)))
    with pytest.raises(InputError, match=r"clients\.groups: no group 'nobody'"):
        Service(tmp_path / "a").learn(check_exact(config_of(place, clients={"train": TRAIN, "groups": ["nobody"]})))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and no service"):
        Service(tmp_path / "b").learn(check_exact(config_of(place)))


@pytest.mark.parametrize("part", ["sum", "folder"])
def test_a_deletion_that_was_cut_off_is_ended_by_whatever_comes_next(copy, part, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    whole = copy.serve(tmp_path / "before.safetensors")
    with monkeypatch.context() as patch:
        if part == "sum":
            patch.setattr("negmerge.exact.service.write_sum", stop)
        else:
            patch.setattr("negmerge.exact.service.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            copy.forget(["author 1"])
    after = copy.serve(tmp_path / "after.safetensors")
    assert after != whole and not copy._folder("author 1").exists() and copy.verify()["clients"] == 3


@pytest.mark.heavy(40)
def test_killed_again_and_again_it_ends_as_one_that_was_not(learnt, place, tmp_path, capsys):
    """The command line, killed while it learns, ends with the sum of Python's."""
    (tmp_path / "config.json").write_text(json.dumps(config_of(place)))
    command = [sys.executable, "-m", "negmerge", "exact", "learn", str(tmp_path / "config.json"), "-o"]
    target = tmp_path / "killed"
    for _ in range(4):
        process = subprocess.Popen([*command, str(target)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        done = len(list(target.glob("clients/*/training.json")))
        while process.poll() is None and len(list(target.glob("clients/*/training.json"))) <= done:
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for arguments in (
        ["exact", "learn", str(tmp_path / "config.json"), "-o", str(target), "--json"],
        ["exact", "forget", str(target), "author 2", "--json"],
        ["exact", "verify", str(target), "--again", "author 0"],
        ["exact", "serve", str(target), "-o", str(tmp_path / "out.safetensors"), "--client", "author 0"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code in (0, None)
        out = capsys.readouterr().out
        if "learn" in arguments:
            assert json.loads(out)["sum"] == learnt[1]["sum"]
        if "forget" in arguments:
            assert len(json.loads(out)["clients"]) == 3
    assert "out.safetensors" in out and (tmp_path / "out.safetensors").is_file()


@pytest.mark.heavy(60)
def test_a_hundred_groups_and_sequential_requests(place, tmp_path):
    """A hundred clients of two rows each; a tenth of them goes, one after the other."""
    rows = [{**row, "author": f"author {i % 100:03d}"} for i, row in enumerate(facts(200, seed=5))]
    write(place / "hundred.jsonl", rows)
    quick = {"train": {"epochs": 1, "lr": 3e-3, "batch_size": 2}}
    service = Service(tmp_path / "hundred")
    assert len(service.learn(check_exact(config_of(place, "hundred.jsonl", clients=quick)))["clients"]) == 100
    gone = [f"author {i:03d}" for i in range(0, 100, 10)]
    for name in gone:
        state = service.forget([name])
    kept = [f"author {i:03d}" for i in range(100) if i % 10]
    assert [one["name"] for one in state["clients"]] == kept and service.verify([kept[7]])["clients"] == 90
    never = Service(tmp_path / "never")
    chosen = {**quick, "groups": kept}
    assert never.learn(check_exact(config_of(place, "hundred.jsonl", clients=chosen)))["sum"] == state["sum"]
    assert served(never, tmp_path, kept[3]) == served(service, tmp_path, kept[3])
