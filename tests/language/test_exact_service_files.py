"""What lies in the folder of a service: what was tampered with is named, what is of others is left alone."""

import shutil

import pytest
import torch
from test_exact_service import TRAIN, config_of, place  # noqa: F401  (a fixture)

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import DivergedError, InputError, NegmergeError
from negmerge.exact import Service
from negmerge.exact.config import check_exact


@pytest.fixture(scope="module")
def two(place):  # noqa: F811
    """Two authors, learnt in one step each."""
    service = Service(place / "two")
    service.learn(check_exact(two_of(place)))
    return service


def two_of(place, **changes):  # noqa: F811
    train = {**TRAIN, "epochs": 1, **changes}
    return config_of(place, clients={"train": train, "groups": ["author 1", "author 2"]})


@pytest.fixture
def copy(two, tmp_path):
    """The service in a folder of the test's own."""
    shutil.copytree(two.directory, tmp_path / "service")
    return Service(tmp_path / "service")


def test_what_a_killed_check_left_goes_with_the_client(copy):
    left = copy.directory / "scratch" / "again"
    shutil.copytree(copy._folder("author 1"), left)
    copy.forget(["author 1"])
    assert not left.exists() and copy.verify()["clients"] == 1
    shutil.copytree(copy._folder("author 2"), copy.directory / "backup")
    with pytest.raises(NegmergeError, match="backup is no file of a service; remove it"):
        copy.verify()


def test_what_cannot_be_removed_is_not_called_removed(copy, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr("negmerge.exact.service.shutil.rmtree", refuse)
        with pytest.raises(NegmergeError, match=r"could not be removed \(Permission denied\)"):
            copy.forget(["author 1"])
    assert copy.verify()["clients"] == 1 and not copy._folder("author 1").exists()  # ended by what came next


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vector.safetensors", None, "client author 2: its vector is gone"),
        ("training.json", "{", "training.json is damaged; put back"),
        ("training.json", '{"name": "author 7"}', "is of the client 'author 7', whose folder is another"),
        ("../../deleted.json", "[]", "deleted.json is damaged; put back"),
        ("../../key.json", None, "is not the base that the service was begun with"),
    ],
)
def test_tampering_is_one_line(copy, name, content, words):
    file = copy._folder("author 2") / name
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(content)
    with pytest.raises(NegmergeError, match=words):
        copy.verify()


def test_another_base_does_not_become_the_right_one(copy):
    state = read_state_dict(copy.base)
    write_state_dict(copy.base, {name: value + 1 for name, value in state.items()})
    with pytest.raises(NegmergeError, match="is not the base that the service was begun with"):
        copy.verify()


def test_serving_leaves_files_of_others_alone(copy, place, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="is in the service"):
        copy.serve(copy.base)
    out = tmp_path / "out.safetensors"
    first = copy.serve(out)
    with pytest.raises(InputError, match="exists; choose another OUT, or replace it with --overwrite"):
        copy.serve(out)
    assert copy.serve(out, "author 1", overwrite=True) != first
    write_state_dict(out, {"mine": torch.ones(3)})
    with pytest.raises(InputError, match="is no model of this service, so --overwrite leaves it alone"):
        copy.serve(out, overwrite=True)
    given = tmp_path / "given.safetensors"
    shutil.copy(copy.base, given)
    other = Service(tmp_path / "other")
    other.learn(check_exact({**two_of(place), "base": {"checkpoint": str(given)}}))
    with pytest.raises(InputError, match="is the input"):
        other.serve(given, overwrite=True)


def test_rows_that_left_the_data_with_their_client_are_not_missed(copy, place):  # noqa: F811
    copy.forget(["author 1"])
    config = two_of(place)
    config["data"]["path"] = str(place / "without.jsonl")
    assert [one["name"] for one in copy.learn(check_exact(config))["clients"]] == ["author 2"]


def test_a_service_that_learnt_nothing_takes_a_corrected_config(place, tmp_path):  # noqa: F811
    service = Service(tmp_path / "new")
    lost = {**two_of(place), "base": {"checkpoint": str(place / "nowhere.safetensors")}}
    with pytest.raises(NegmergeError):
        service.learn(check_exact(lost))
    assert len(service.learn(check_exact(two_of(place)))["clients"]) == 2


def test_weights_beyond_numbers_are_no_vector(place, tmp_path):  # noqa: F811
    with pytest.raises(DivergedError, match="client author 1: training diverged"):
        Service(tmp_path / "far").learn(
            check_exact(two_of(place, optimizer="sgd", lr=3e38, weight_decay=1000.0, batch_size=8))
        )
