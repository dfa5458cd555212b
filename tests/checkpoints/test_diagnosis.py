"""Where names or folders do not fit, one line says what they are and what to give instead."""

import json

import pytest
import torch
from safetensors.torch import save_file

from negmerge.checkpoints import open_checkpoint, write_state_dict
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts
from pools import drift, make_state


def behind(prefix, state):
    return {prefix + name: value for name, value in state.items()}


BASE, MEMBER = make_state(0), drift(make_state(0), 1)
SAME = {name: value for name, value in MEMBER.items() if name not in ("scale", "half")}
FACTORS = {"q.lora_A.weight": torch.ones(2, 4), "q.lora_B.weight": torch.ones(4, 2)}
NAMES = {
    "a prefix": (
        (BASE, behind("backbone.", MEMBER)),
        r"all names differ by the prefix 'backbone\.': members\[0\] has it and base has not; rename them, for "
        r"example .*name\.removeprefix\('backbone\.'\)",
    ),
    "a prefix of the base": (
        (behind("model.encoder.", BASE), MEMBER),
        r"all names differ by the prefix 'model\.encoder\.': base has it and members\[0\] has not",
    ),
    "a prefix, and a buffer less": (
        (BASE, behind("backbone.", {name: value for name, value in MEMBER.items() if "tracked" not in name})),
        r"all names differ by the prefix 'backbone\.'",
    ),
    "two prefixes": (
        (behind("bert.", BASE), behind("roberta.encoder.", MEMBER)),
        r"all names differ by the prefix: bert\.\* in the base base, roberta\.encoder\.\* in members\[0\]",
    ),
    "a part": (
        (BASE, {**behind("model.", MEMBER), "criterion.weight": torch.ones(1)}),
        r"members\[0\] holds the names of base behind the prefix 'model\.', beside others \(criterion\.weight\)",
    ),
    "the bare model": (
        ({**behind("model.", BASE), "lm_head.weight": torch.ones(1)}, MEMBER),
        r"members\[0\] is a part of base, which has its names behind 'model\.', "
        r"beside others \(lm_head\.weight\)",
    ),
    "two copies": (
        (BASE, {**behind("model.", MEMBER), **behind("model_ema.", MEMBER)}),
        r"members\[0\] holds the base's names 2 times, as model\.\* and model_ema\.\*; save the one meant alone",
    ),
    "itself and a copy": (
        (BASE, {**MEMBER, **behind("ema.", MEMBER)}),
        r"members\[0\] holds the base's names 2 times, as \* and ema\.\*",
    ),
    "another architecture": (
        (BASE, {f"layer{i}.weight": torch.ones(1) for i in range(3)}),
        r"members\[0\] has none of the 12 names of the base base: another architecture\? "
        r"The base has stem\.weight, stem\.bias; the member layer0\.weight, layer1\.weight",
    ),
    "flattened": (
        (BASE, {"_fsdp_wrapped_module._flat_param": torch.ones(99)}),
        r"members\[0\] holds the flattened parameters of FSDP; save it with StateDictType\.FULL_STATE_DICT",
    ),
    "placeholders": (
        (BASE, {name: torch.empty(0) for name in BASE}),
        r"members\[0\] was saved under DeepSpeed ZeRO-3 without gathering: 12 of its tensors have no elements;",
    ),
    "placeholders on both sides": (
        ({name: torch.empty(0) for name in BASE}, {name: torch.empty(0) for name in BASE}),
        r"base was saved under DeepSpeed ZeRO-3 without gathering",
    ),
    "factors on both sides": (
        (FACTORS, {name: value + 1 for name, value in FACTORS.items()}),
        r"base holds the factors of an adapter, which is no model of its own",
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_one_line_says_why_names_differ(case):
    (base, member), message = NAMES[case]
    with pytest.raises(InputError, match=rf"^{message}") as caught:
        merge_state_dicts(base, [member])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("member", [SAME, {**MEMBER, "more": torch.ones(1)}, {**MEMBER, "scale": torch.ones(2)}])
def test_names_that_differ_one_by_one_are_listed(member):
    with pytest.raises(InputError, match=r"^\d tensors do not fit the base base; --exclude .*:\n"):
        merge_state_dicts(BASE, [member])


def weights(place, name="model.safetensors", state=None):
    place.mkdir(parents=True, exist_ok=True)
    write_state_dict(place / name, MEMBER if state is None else state)


def adapter(place):
    weights(
        place, "adapter_model.safetensors", {"a.lora_A.weight": torch.ones(2, 5), "a.lora_B.weight": torch.ones(7, 2)}
    )
    (place / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))


def touch(*names):
    def make(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")

    return make


def steps(folder):
    for step in (5, 500, 1000):
        weights(folder / f"checkpoint-{step}")
    touch("training_args.bin", "trainer_state.json")(folder)


def snapshots(folder):
    weights(folder / "snapshots" / "0123")
    touch("blobs/abc")(folder)


FOLDERS = {
    "a trainer's": (steps, "is a trainer's folder and holds no weights itself: give {}/checkpoint-1000"),
    "an adapter": (lambda folder: adapter(folder / "forget"), "an adapter lies in {}/forget: give that folder"),
    "adapters": (
        lambda folder: [adapter(folder / name) for name in "abcd"],
        "adapters lie in a, b, c, …: give one of these, such as {}/a",
    ),
    "epochs": (
        lambda folder: [weights(folder / f"epoch_{i}") for i in (1, 2)],
        "models lie in epoch_1, epoch_2: give one of these, such as {}/epoch_1",
    ),
    "shards of FSDP": (
        touch("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp", "optimizer.bin"),
        "keeps its weights in shards of FSDP in pytorch_model_fsdp_0/; join them with `accelerate merge-weights "
        "{}/pytorch_model_fsdp_0 OUT`",
    ),
    "shards of ZeRO": (
        touch("pytorch_model/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        "is a DeepSpeed ZeRO checkpoint in pytorch_model/; convert it with its zero_to_fp32.py",
    ),
    "a checkpoint of Lightning": (
        touch("version_0/checkpoints/epoch=1.ckpt", "version_0/hparams.yaml"),
        "holds no weights, but there are some further in: give {}/version_0/checkpoints/epoch=1.ckpt",
    ),
    "a model of the hub's cache": (snapshots, "but there are some further in: give {}/snapshots/0123"),
    "another file": (
        touch("last.ckpt", "scaler.pt"),
        "holds no .safetensors and no .bin file, but last.ckpt: give {}/last.ckpt",
    ),
    "the trainer's own state": (
        touch("training_args.bin", "optimizer.pt", "rng_state_0.pth", "config.json"),
        "holds only a trainer's own state (optimizer.pt, rng_state_0.pth, training_args.bin) and no weights",
    ),
    "nothing": (touch("notes.md"), "holds no .safetensors and no .bin file; give the folder of a saved model"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_without_weights_says_what_to_give(tmp_path, case):
    make, message = FOLDERS[case]
    make(tmp_path)
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} ") and message.format(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trainers_own_state_is_never_taken_for_weights(tmp_path):
    names = ("training_args.bin", "optimizer.bin", "optimizer_1.bin", "scheduler.bin", "sampler.bin")
    for name in names:
        torch.save({"state": 1}, tmp_path / name)
    torch.save(MEMBER, tmp_path / "weights.bin")
    assert open_checkpoint(tmp_path).names == tuple(MEMBER)
    for name in (*names, "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "random_states_0.pkl"):
        torch.save({"state": torch.ones(1)}, tmp_path / name)
        with pytest.raises(InputError, match=rf"{name} is a trainer's own state and holds no weights"):
            open_checkpoint(tmp_path / name)


def test_an_adapters_file_names_its_folder(tmp_path):
    adapter(tmp_path / "a")
    write_state_dict(tmp_path / "base.safetensors", BASE)
    for given in (tmp_path / "a" / "adapter_model.safetensors", tmp_path / "lora.safetensors"):
        if not given.exists():
            given.write_bytes((tmp_path / "a" / "adapter_model.safetensors").read_bytes())
        with pytest.raises(InputError, match="holds the factors of an adapter: give") as caught:
            merge_checkpoints(tmp_path / "base.safetensors", [given], tmp_path / "o.safetensors")
        known = given.parent.name == "a"
        assert str(caught.value).endswith(
            f"the folder {tmp_path / 'a'}" if known else "a folder that has its adapter_config.json"
        )


CONTENT = {
    "GGUF": (b"GGUF\3\0\0\0", "is a GGUF file; load it with"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file of Keras or TensorFlow"),
    "gzip": (b"\x1f\x8b\x08\0", "is a gzip archive; unpack it"),
    "tar": (bytes(257) + b"ustar\0", "is a tar archive; unpack it"),
    "old torch": (b"sys_info\0".ljust(257, b"\0") + b"ustar\0", "was saved by torch from before 0.2"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS and not the weights"),
    "page": (b"<!DOCTYPE html><html>", "is a web page and not the weights"),
    "text": (b"hello", "begins neither like a safetensors file nor like one of torch.save"),
    "empty": (b"", "begins neither like"),
}


@pytest.mark.parametrize("name", ["model", "model.model", "model.ptrom"])
@pytest.mark.parametrize("case", CONTENT)
def test_a_file_is_known_by_its_first_bytes(tmp_path, case, name):
    data, message = CONTENT[case]
    (tmp_path / name).write_bytes(data.ljust(300, b"\0") if data else data)
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("ending", "message"), [(".safetensors", "is not a whole safetensors"), (".ckpt", "is not a whole PyTorch")]
)
def test_the_ending_counts_where_the_bytes_say_nothing(tmp_path, ending, message):
    (tmp_path / f"x{ending}").write_bytes(b"\x80\x02}" + bytes(100))
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / f"x{ending}")


def test_a_missing_file_of_any_ending_is_no_model_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/last.ckpt", "runs/model.pth.tar", "runs/x.th"):
        with pytest.raises(InputError, match=f"{name}: no such file or folder; give a checkpoint that exists"):
            open_checkpoint(name)


def test_safetensors_with_a_name_of_torch(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert open_checkpoint(tmp_path).names == ("a",)
