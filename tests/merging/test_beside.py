"""What of the base's folder is copied beside the weights, what is left behind, and what is refused before the work."""

import json
import os
import shutil

import pytest
import yaml

from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.beside import LIMIT, copy_beside, plan_beside
from negmerge.merging.output.verifying import verify_model

WEIGHTS = "model.safetensors"
LEFT = """forget_set.json train_data.txt wandb.json trainer_state.json optimizer.pt scheduler.pt rng_state.pth
    training_args.bin all_results.json events.out.tfevents.1.a pytorch_model.bin tf_model.h5 flax_model.msgpack
    model.onnx m.gguf consolidated.00.pth README.md notes data.parquet unknown.json train.py"""
LEFT_WHOLE = """checkpoint-500/tokenizer.json runs/Nov1/events.out wandb/run/config.json original/tokenizer.model
    onnx/config.json data/vocab.txt logs/tokenizer_config.json draft/tokenizer.json draft/model.safetensors
    images/1.png"""


def lay(folder, files):
    """Write files, with text or JSON in them, below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def planned(tmp_path):
    """A function that lays files beside weights in `tmp_path/model` and plans what is copied."""

    def plan(files, **more):
        folder = lay(tmp_path / "model", {WEIGHTS: "", **files})
        return plan_beside(folder, [folder / WEIGHTS], **more)

    return plan


def copied(planned, files):
    return list(planned(dict.fromkeys(files, "{}") if isinstance(files, str | list) else files).copied)


def test_what_a_trainer_leaves_is_left_behind(planned):
    strangers, folders = LEFT.split(), LEFT_WHOLE.split()
    plan = planned(dict.fromkeys([*strangers, *folders, ".gitattributes", ".git/config"], "{}") | {"config.json": "{}"})
    assert plan.copied == ("config.json",)
    roots = {f"{name.split('/')[0]}/" for name in folders}
    assert plan.left_behind[:-2] == tuple(sorted({*strangers, *roots}))
    assert plan.left_behind[-2:] == (".git/", ".gitattributes")


def test_tokenizers_wherever_they_lie(planned):
    files = {
        "question_encoder_tokenizer/tokenizer_config.json": {},
        "question_encoder_tokenizer/vocab.txt": "a",
        "question_encoder_tokenizer/additional_chat_templates/rag.jinja": "x",
        "processors/audio/preprocessor_config.json": {},
        "processors/audio/mel_filters.npz": "x",
        "additional_chat_templates/tool_use.jinja": "x",
        "custom_generate/generate.py": "",
        "language_model/attrs.json": {},
        "language_model/5gram.bin": "x",
        "alphabet.json": {},
    }
    strangers = {
        "question_encoder_tokenizer/notes.json": {},
        "words/vocab.txt": "no tokenizer lies here",
        "additional_chat_templates/notes.txt": "x",
    }
    plan = planned(files | strangers)
    assert plan.copied == tuple(sorted(files))
    assert plan.left_behind == (
        "additional_chat_templates/notes.txt", "question_encoder_tokenizer/notes.json", "words/",
    )  # fmt: skip


def test_a_language_model_belongs_to_its_alphabet(planned):
    assert copied(planned, ["language_model/5gram.bin", "vocab.json"]) == ["vocab.json"]


def test_the_parts_of_a_sentence_transformer(planned):
    parts = ["", "1_Pooling", "2_Dense", "3_Old", "4_Normalize"]
    modules = [{"idx": i, "name": str(i), "path": path, "type": "x.Y"} for i, path in enumerate(parts)]
    plan = planned(
        {
            "modules.json": modules,
            "1_Pooling/config.json": {},
            "2_Dense/config.json": {},
            "2_Dense/model.safetensors": "weights",
            "2_Dense/pytorch_model.bin": "a copy of them",
            "2_Dense/README.md": "",
            "3_Old/wordembedding_config.json": {},
            "3_Old/pytorch_model.bin": "weights",
            "3_Old/training_args.bin": "",
            "3_Old/train_config.json": {},
            "5_Unnamed/config.json": {},
        }
    )
    assert plan.copied == (
        "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "3_Old/pytorch_model.bin",
        "3_Old/wordembedding_config.json", "modules.json",
    )  # fmt: skip
    assert plan.unmerged == ("2_Dense/model.safetensors", "3_Old/pytorch_model.bin")
    assert plan.left_behind == (
        "2_Dense/README.md", "2_Dense/pytorch_model.bin", "3_Old/train_config.json", "3_Old/training_args.bin",
        "5_Unnamed/",
    )  # fmt: skip
    first = plan.warnings[0]
    assert "2_Dense/model.safetensors is copied from the base as it is" in first


def test_a_part_in_shards_keeps_its_index(planned):
    shards = ["1_Dense/model-00001-of-00001.safetensors", "1_Dense/model.safetensors.index.json"]
    plan = planned(
        {"modules.json": [{"path": "1_Dense"}], **dict.fromkeys([*shards, "1_Dense/pytorch_model.bin"], "x")}
    )
    assert plan.copied == (*shards, "modules.json")
    assert plan.unmerged == (shards[0],) and plan.left_behind == ("1_Dense/pytorch_model.bin",)


def test_the_parts_that_a_router_names(planned):
    router = {"types": {"query_0_A": "x.A", "document_0_B": "x.B"}, "structure": {"query": ["query_0_A"]}}
    files = {
        "modules.json": [{"path": "0_Router"}],
        "0_Router/router_config.json": router,
        "0_Router/query_0_A/config.json": {},
        "0_Router/document_0_B/config.json": {},
    }
    assert copied(planned, files | {"0_Router/other/config.json": {}}) == sorted(files)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b"])
def test_a_part_outside_the_folder_is_refused(planned, path):
    with pytest.raises(InputError, match=r"modules.json names .*, which is not in that folder"):
        planned({"modules.json": [{"path": path}]})


@pytest.mark.parametrize("text", ["{", "3", "[3]", '[{"path": 3}]', '{"path": "x"}', "[" * 100_000])
def test_a_list_of_parts_that_is_none(planned, text):
    assert planned({"modules.json": text, "x/config.json": "{}"}).copied == ("modules.json",)


CODE = """
import torch, sibling
from . import alone
from .modules.attention import Attention
from .layers import Layer
VOCAB = {"vocab_file": "own.model", "font": "fonts/Own.ttf"}
WEIGHTS, DATA, UP, CARD = "model.safetensors", "train_rows.json", "../secret.json", "README.md"
"""


def test_code_and_what_it_names(planned):
    files = {
        "config.json": {"auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "other/repo--configuration_x.X"}},
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": ["tokenization_own.Slow", None]},
            "vocab_file": "v.own",
        },
        "modules.json": [{"path": "", "type": "custom_st.Transformer"}],
        "modeling_own.py": CODE,
        "tokenization_own.py": "def broken(",
        "custom_st.py": "from .custom_st import itself",
        "sibling.py": "",
        "alone.py": "",
        "layers.py": "from .deeper import x",
        "deeper.py": "",
        "modules/__init__.py": "",
        "modules/attention.py": "from ..up import x",
        "up.py": "",
        "own.model": "x",
        "fonts/Own.ttf": "x",
        "v.own": "x",
    }
    strangers = {
        "configuration_x.py": "of another repository", "modeling_unused.py": "", "train.py": "", "train_rows.json": {},
        "README.md": "", "fonts/Other.ttf": "x", "torch.txt": "",
    }  # fmt: skip
    lay(planned(strangers).folder.parent, {"secret.json": {}})
    plan = planned(files)
    assert plan.copied == tuple(sorted(files))
    assert plan.left_behind == tuple(sorted(strangers))


def test_a_pipeline_of_ones_own(planned):
    files = {"config.json": {"custom_pipelines": {"pair": {"impl": "pair.Pair", "pt": ["AutoModel"]}}}, "pair.py": ""}
    assert copied(planned, files) == sorted(files)


def test_voices_by_their_list(planned):
    files = {
        "speaker_embeddings_path.json": {"repo_or_path": "x/y", "en": {"coarse": "speaker_embeddings/en.npy"}},
        "speaker_embeddings/en.npy": "x",
    }
    assert copied(planned, files | {"speaker_embeddings/other.npy": "x"}) == sorted(files)


@pytest.mark.parametrize(
    ("file", "key", "named"),
    [
        ("config.json", "vocab_file", "rows.own"),  # not a tokenizer's config
        ("tokenizer_config.json", "train_file", "rows.own"),
        ("tokenizer_config.json", "data_path", "rows.own"),
        ("tokenizer_config.json", "vocab_file", "forget_set.own"),
        ("tokenizer_config.json", "vocab_file", "rows.jsonl"),
        ("tokenizer_config.json", "vocab_file", "data/rows.own"),
        ("tokenizer_config.json", "vocab_file", "x/../rows.own"),
        ("tokenizer_config.json", "vocab_file", ".hidden.own"),
        ("tokenizer_config.json", "name", "rows.own"),
    ],
)
def test_data_that_a_config_names_stays_behind(planned, file, key, named):
    assert copied(planned, {file: {key: named}, named.replace("x/../", ""): "secret", "x/y": ""}) == [file]


def test_licences_and_their_folder(planned):
    files = ["COPYING", "LICENSES/LICENSE.own", "LICENSES/MIT.txt", "use_policy.md"]
    assert copied(planned, [*files, "LICENSES/.x", "LICENSES/a.json"]) == files


def test_a_file_that_is_too_large_is_refused_before_the_work(pool, tmp_path):
    base, members = pool
    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copy(base, folder / WEIGHTS)
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(InputError, match=r"tokenizer.json has 268,435,457 bytes, at most 268,435,456 are believed"):
        merge_checkpoints(folder, members, tmp_path / "new" / "out", on_event=lambda _: pytest.fail("work began"))
    assert not (tmp_path / "new").exists()


def test_large_vocabularies_and_weights_of_a_part_are_believed(planned):
    modules = {
        "modules.json": [{"path": "1_Dense"}],
        "vocab-src.json": "",
        "tokenizer.json": "",
        "1_Dense/model.safetensors": "",
    }
    folder = planned(modules).folder
    for name, size in (("tokenizer.json", 2**25), ("vocab-src.json", 2**25), ("1_Dense/model.safetensors", LIMIT + 1)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    assert copied(planned, {}) == ["1_Dense/model.safetensors", "modules.json", "tokenizer.json", "vocab-src.json"]


def test_what_cannot_be_read_is_refused_by_name(planned, tmp_path):
    folder = planned({}).folder
    (folder / "config.json").symlink_to("missing")
    with pytest.raises(InputError, match=r"config.json: No such file or directory; the base loads with it"):
        planned({})
    (folder / "config.json").unlink()
    os.mkfifo(folder / "merges.txt")
    with pytest.raises(InputError, match=r"merges.txt is not a regular file"):
        planned({})
    (folder / "merges.txt").unlink()
    (folder / "vocab.txt").symlink_to("vocab.txt")
    with pytest.raises(InputError, match=r"vocab.txt: Too many levels of symbolic links"):
        planned({})


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    blobs = lay(tmp_path / "blobs", {"a": "{}", "b": "pool", "c": "weights"})
    folder = tmp_path / "snapshots" / "0"
    (folder / "1_Pooling").mkdir(parents=True)
    lay(folder, {"modules.json": [{"path": "1_Pooling"}]})
    (folder / "config.json").symlink_to(blobs / "a")
    (folder / "1_Pooling" / "config.json").symlink_to("../../../blobs/b")
    (folder / WEIGHTS).symlink_to(blobs / "c")
    (folder / "round").symlink_to(folder)
    (folder / "gone.json").symlink_to("missing")
    plan = plan_beside(folder, [folder / WEIGHTS])
    assert plan.copied == ("1_Pooling/config.json", "config.json", "modules.json")
    assert plan.left_behind == ("gone.json", "round/")
    copy_beside(plan, tmp_path)
    assert (tmp_path / "1_Pooling" / "config.json").read_text() == "pool"
    assert not (tmp_path / "config.json").is_symlink() and (tmp_path / "config.json").read_text() == "{}"


def test_shards_and_their_index_are_not_left_behind(tmp_path):
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    folder = lay(tmp_path / "m", dict.fromkeys([*names, "pytorch_model.bin.index.json"], "{}"))
    lay(folder, {"model.safetensors.index.json": "{}"})
    plan = plan_beside(folder, [folder / name for name in names])
    assert plan.copied == () and plan.left_behind == ("model.safetensors.index.json",)


@pytest.mark.parametrize(
    ("given", "whole", "shard"),
    [
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model", "diffusion_pytorch_model-00001-of-"),
        ("open_clip_model.safetensors", "open_clip_model", "open_clip_model-00001-of-"),
        ("adapter_free.safetensors", "model", "model-00001-of-"),
    ],
)
def test_weights_are_called_as_their_library_calls_them(pool, tmp_path, given, whole, shard):
    folder = lay(tmp_path / "m", {"config.json": {"_diffusers_version": "0.30"}})
    shutil.copy(pool[0], folder / given)
    merge_checkpoints(folder, pool[1], tmp_path / "out")
    merge_checkpoints(folder, pool[1], tmp_path / "shards", max_shard_size="100")
    names = [path.name for path in (tmp_path / "shards").iterdir()]
    assert (tmp_path / "out" / f"{whole}.safetensors").is_file() and verify_model(tmp_path / "out").count == 4
    assert f"{whole}.safetensors.index.json" in names and any(name.startswith(shard) for name in names)
    shards = sum(name.endswith(".safetensors") for name in names)
    assert verify_model(tmp_path / "shards").count == 2 * shards + 3  # index, config and card
    merge_checkpoints(folder, pool[1], tmp_path / "shards", overwrite=True, alpha=0.5)


def test_what_lies_beside_is_verified(pool, tmp_path):
    """Also in folders: a part's config that is changed after the merge is named."""
    parts = {"modules.json": [{"path": "1_Dense"}], "1_Dense/config.json": {}, "1_Dense/model.safetensors": "weights"}
    folder = lay(tmp_path / "m", {**parts, "LICENSE": "x", "data.json": {}})
    shutil.copy(pool[0], folder / WEIGHTS)
    report = merge_checkpoints(folder, pool[1], tmp_path / "out")
    assert any("1_Dense/model.safetensors is copied from the base as it is" in line for line in report.warnings)
    assert {*parts, "LICENSE", "README.md", WEIGHTS} == set(verify_model(tmp_path / "out").sha256)
    (tmp_path / "out" / "1_Dense" / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"1_Dense/config.json"):
        verify_model(tmp_path / "out")


def test_names_that_cannot_be_printed(planned):
    folder = planned({}).folder
    (folder / os.fsdecode(b"a\xff\n.txt")).write_text("x")
    assert planned({}).left_behind == ("a\ufffd\ufffd.txt",)


def test_config_changes_are_planned_and_written(planned, tmp_path):
    plan = planned({"config.json": {"dtype": "bfloat16"}}, dtype="float32", config={("tie_word_embeddings",): False})
    copy_beside(plan, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"dtype": "float32", "tie_word_embeddings": False}
    same = planned({"config.json": '{ "dtype":"bfloat16"}'})
    copy_beside(same, tmp_path)
    assert (tmp_path / "config.json").read_text() == '{ "dtype":"bfloat16"}'


CARDS = {
    "---\nlicense: llama3.2\nlanguage:\n- en\n- no\ntags: [x]\nextra: {a: 1}\n---\n# A model\n": {
        "license": "llama3.2",
        "language": ["en", "no"],
    },
    "\ufeff---\r\nlicense: other\r\nlicense_name: own\r\nlicense_link: LICENSE\r\nlanguage: no\r\n---\r\ntext": {
        "license": "other", "license_name": "own", "license_link": "LICENSE", "language": "no",
    },
    "# No front matter\n---\nlicense: mit\n---\n": {},
    "---\nlicense: [\n---\n": {},
    "---\nlicense: {a: b}\nlanguage: []\n---\n": {},
    "---\n- license\n---\n": {},
    "---\nlicense: mit": {},
    "---\n" + "[" * 3_000 + "\n---\n": {},
}  # fmt: skip


@pytest.mark.parametrize("card", CARDS)
def test_licence_and_language_stay_declared(pool, tmp_path, card):
    folder = lay(tmp_path / "m", {"README.md": card})
    shutil.copy(pool[0], folder / WEIGHTS)
    report = merge_checkpoints(folder, pool[1], tmp_path / "out")
    assert report.left_behind == ("README.md",)
    text = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == CARDS[card] | {
        "library_name": "transformers", "tags": ["machine-unlearning", "task-arithmetic", "negmerge"]
    }  # fmt: skip
    assert text.split("---\n")[2].startswith("\n# A merged model")


def test_the_command_names_what_was_left_behind(pool, tmp_path, capsys):
    folder = lay(tmp_path / "m", dict.fromkeys([f"data{i:02}.json" for i in range(13)], "{}"))
    shutil.copy(pool[0], folder / WEIGHTS)
    words = ["merge", str(folder), *map(str, pool[1]), "-o"]
    assert ended(lambda: main([*words, str(tmp_path / "out")])) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "left behind" in line)
    assert line.endswith(f"{', '.join(f'data{i:02}.json' for i in range(10))} … and 3 more")
    assert ended(lambda: main([*words, str(tmp_path / "again"), "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["left_behind"] == [f"data{i:02}.json" for i in range(13)]
    assert ended(lambda: main([*words, str(tmp_path / "o.safetensors")])) == 0
    assert "left behind" not in capsys.readouterr().out


def ended(run):
    """Return the exit code of a command."""
    try:
        run()
    except SystemExit as stop:
        return stop.code or 0
    return 0
