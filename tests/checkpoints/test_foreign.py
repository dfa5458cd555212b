"""What holds no plain weights is recognised by its tensors or its files, and refused with what converts it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from formats.refusing import QUANTISED, SCALES, distributed, integers, zero
from negmerge.checkpoints import open_checkpoint, write_state_dict
from negmerge.cli import main
from negmerge.errors import InputError
from pools import make_state


@pytest.fixture
def refused(tmp_path, capfd):
    """Run a merge with a base that must be refused; returns the one line on stderr."""

    def run(base):
        write_state_dict(tmp_path / "member.safetensors", make_state(1))
        with pytest.raises(SystemExit) as stop:
            main(["merge", str(base), str(tmp_path / "member.safetensors"), "-o", str(tmp_path / "o.safetensors")])
        out, err = capfd.readouterr()
        assert stop.value.code == 2 and out == "" and err.count("\n") == 1
        assert not (tmp_path / "o.safetensors").exists()
        return err

    return run


@pytest.mark.parametrize("ending", ["safetensors", "pt", "shards"])
@pytest.mark.parametrize("case", QUANTISED, ids=lambda case: case.title)
def test_quantised_weights_are_known_by_their_tensors(tmp_path, refused, case, ending):
    state = {"first.bias": torch.ones(3), **{f"layer.{name}": value for name, value in case.parts.items()}}
    place = tmp_path / f"x.{ending}"
    if ending == "shards":
        place.mkdir()
        for i, (name, value) in enumerate(state.items()):
            save_file({name: value}, place / f"{i}.safetensors")
        weight_map = {name: f"{i}.safetensors" for i, name in enumerate(state)}
        (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    elif ending == "pt":
        torch.save(state, place)
    else:
        save_file({name: value.clone() for name, value in state.items()}, place)
    line = refused(place)
    if ending == "shards" and any(value.dtype.itemsize == 1 and value.is_floating_point() for value in state.values()):
        assert "is quantised (fp8: layer.weight" in line  # the shard alone says so, without its scales
    else:
        assert f"is quantised ({case.kind}" in line and case.tool in line


def test_integers_without_companions_are_buffers(tmp_path):
    state = {"layer.weight": integers(torch.int8), "scales": SCALES, "other.qweight": integers(), "b": torch.ones(1)}
    write_state_dict(tmp_path / "x.safetensors", state)
    assert set(open_checkpoint(tmp_path / "x.safetensors").names) == set(state)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", None])
def test_a_config_that_says_so(tmp_path, refused, method):
    (tmp_path / "m").mkdir()
    write_state_dict(tmp_path / "m" / "model.safetensors", make_state(0))
    content = {"quantization_config": {"quant_method": method} if method else {}}
    (tmp_path / "m" / "config.json").write_text(json.dumps(content))
    line = refused(tmp_path / "m")
    assert f"is quantised ({method or 'quantization_config in config.json'})" in line and "model.dequantize()" in line


def test_a_distributed_checkpoint_made_by_torch(tmp_path, refused):
    line = refused(distributed(tmp_path))
    assert "is a distributed checkpoint (DCP)" in line and "format_utils dcp_to_torch" in line
    part = next((tmp_path / "dcp").glob("*.distcp"))
    assert "is a part of a distributed checkpoint (DCP)" in refused(part)


@pytest.mark.filterwarnings("ignore")  # it was made for many processes, and says that there is one
def test_what_converts_a_distributed_checkpoint_does(tmp_path):
    """The tool that the message names gives a file that is read."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    distributed(tmp_path)
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "x.pt")
    assert set(open_checkpoint(tmp_path / "x.pt").names) == set(make_state(0))


def test_a_zero_checkpoint(tmp_path, refused):
    steps = zero(tmp_path / "z") / "global_step10"
    for place in (tmp_path / "z", steps, next(steps.glob("*optim_states.pt")), next(steps.glob("*model_states.pt"))):
        line = refused(place)
        assert "a DeepSpeed ZeRO checkpoint; convert it with its zero_to_fp32.py" in line


def test_whole_weights_beside_the_shards_of_an_optimiser_are_read(tmp_path):
    zero(tmp_path / "z")
    write_state_dict(tmp_path / "z" / "model.safetensors", make_state(0))
    assert "brain" in open_checkpoint(tmp_path / "z").names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.gguf", "is a GGUF file"),
        ("x.h5", "is a TensorFlow file"),
        ("x.msgpack", "is a Flax file"),
        ("x.onnx", "is an ONNX program"),
    ],
)
def test_files_of_other_programs(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / name)


def test_an_adapter_alone_is_no_base(tmp_path, refused):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text("{}")
    assert "is an adapter, which is no model of its own" in refused(tmp_path / "a")
