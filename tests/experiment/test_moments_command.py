"""`negmerge moments`: whose projection it takes, and what it refuses before anything is made."""

import pytest
import yaml
from test_projection_run import TINY, config

from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.experiment.moments import chosen_projection, take_moments
from negmerge.experiment.projection_config import ProjectionConfig


def test_the_projection_is_that_of_the_config_or_of_its_methods():
    few = {"rows": "validation", "samples": 40}
    own = [{"name": "uniform", "projection": {**few, "strength": 1}}]
    assert chosen_projection(config(methods=own)).rows == "retain"
    of_methods = [*own, {"name": "consensus", "projection": {**few, "strength": 5}}, "ties"]
    chosen = chosen_projection(config(methods=of_methods, projection="none"))
    assert (chosen.rows, chosen.samples) == ("validation", 40)
    assert chosen_projection(config(projection="none")) == ProjectionConfig()


def test_methods_that_differ_in_rows_ask_for_a_choice():
    methods = [
        {"name": "uniform", "projection": {"rows": "validation", "samples": 40}},
        {"name": "ties", "projection": {"samples": 50}},
    ]
    with pytest.raises(InputError) as caught:
        chosen_projection(config(methods=methods, projection="none"))
    assert str(caught.value) == (
        "the methods project on different rows (uniform 40 rows of validation, ties 50 rows of retain); choose one by "
        "--set 'projection={rows: validation, samples: 40}'"
    )
    chosen = chosen_projection(config(methods=methods, projection={"rows": "validation", "samples": 40}))
    assert chosen.samples == 40


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY))
    place = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["moments", str(tmp_path / "c.yaml"), "--run", str(place), "-o", str(tmp_path / "none" / "x")])
    assert stop.value.code == 2
    assert f"there is no folder {tmp_path / 'none'}; make it first" in capsys.readouterr().err
    assert not place.exists()


def test_the_help_says_whose_split_is_used(capsys):
    with pytest.raises(SystemExit):
        main(["moments", "--help"])
    assert "of several seeds" in " ".join(capsys.readouterr().out.split())


def test_what_a_kill_left_half_is_made_anew(tmp_path):
    train = {**TINY["base"]["train"], "epochs": 1}
    data = {**TINY["data"], "train_rows": [0, 300]}
    made = config(base={"train": train}, data=data, projection={"samples": 20})
    place, out = tmp_path / "run", tmp_path / "out"
    take_moments(made, place, out)
    (file,) = (place / "private" / "moments").glob("*.safetensors")
    whole, beside = out.read_bytes(), file.with_suffix(".json")
    for leave in (beside.unlink, lambda: file.write_bytes(whole[:-100])):
        leave()
        events = []
        assert take_moments(made, place, out, overwrite=True, on_event=events.append)["seconds"] > 0
        assert [event["stage"] for event in events if event["event"] == "stage-started"].count("moments") == 1
        assert out.read_bytes() == whole
