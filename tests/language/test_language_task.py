"""The task of a causal language model: tokens, windows, padding, losses by hand, and what is refused."""

import json
import pickle

import pytest
import torch
from tiny_language import facts, save, transformers, write

from negmerge.errors import InputError
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.causal_lm.columns import COLUMNS, SAID
from negmerge.tasks.causal_lm.language_model import LanguageModel, Settings
from negmerge.tasks.causal_lm.sources import table
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.training import TrainSettings

AutoTokenizer = transformers.AutoTokenizer

PLAIN_COLUMNS = [name for name in COLUMNS if name not in SAID]


def make(folder, rows, **model):
    path = write(folder / "rows.jsonl", rows)
    data = DataConfig(source="jsonl", path=str(path), forget={"fraction": 0.2})
    config = ModelConfig(family="hf", **{"path": str(folder / "model"), **model})
    loaded = preparing.load_data(data, config)
    return preparing.make_task(data, config, Compute(), loaded.tables, loaded.described)


def loud(model):
    with torch.no_grad():  # weights so large that what is padded would show
        for value in model.parameters():
            value.mul_(3.0)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "pad", "chat", "tied"),
    [("llama", True, False, True), ("llama", False, True, False), ("gpt2", False, False, True)],
)
def test_a_padded_batch_gives_the_numbers_of_single_rows(tmp_path, kind, pad, chat, tied):
    save(tmp_path / "model", kind, pad=pad, chat=chat, tied=tied)
    rows = [{**row, "answer": row["answer"] + " And so on." * (i % 4)} for i, row in enumerate(facts(15))]
    task = make(tmp_path, rows)
    model = loud(task.start(0))
    some = torch.arange(12)
    batch = task.batch(some, "cpu")
    assert batch.mask.sum(1).unique().numel() > 3 and task.facts["ends"] == 1
    sums, counts = (part.detach() for part in task.likelihoods(model, batch))
    for i, row in enumerate(some):
        ids = task.reader.sequences.ids(int(row))
        start = int(task.reader.sequences.starts[row])
        logs = model(input_ids=ids[None]).logits[0].double().log_softmax(-1).detach()
        by_hand = torch.stack([logs[place - 1, ids[place]] for place in range(start, len(ids))])
        assert int(counts[i]) == len(ids) - start
        torch.testing.assert_close(sums[i].double(), by_hand.sum(), rtol=1e-4, atol=1e-4)
        seen = task.observe(model, {"one": row[None]}, {"one": ["loss", "confidence", "correct", "min_k"]})["one"]
        torch.testing.assert_close(seen["loss"][0], -by_hand.mean(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(seen["confidence"][0], by_hand.mean().exp(), rtol=1e-3, atol=1e-6)
        lowest = by_hand[:-1].sort().values[: max(1, int(0.4 * (len(by_hand) - 1)))]
        torch.testing.assert_close(seen["min_k"][0], -lowest.mean(), rtol=1e-4, atol=1e-4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    seen = task.observe(model, {"a": order[:9], "b": order[4:]}, {"a": ["loss", "group"], "b": PLAIN_COLUMNS})
    torch.testing.assert_close(seen["a"]["loss"], (-sums / counts).double()[order[:9]], rtol=1e-4, atol=1e-4)
    assert torch.equal(seen["b"]["group"], task.rows().group_of[order[4:]])
    assert seen["b"]["truth_ratio"].isnan().all() and seen["b"]["tokens"].tolist() == counts[order[4:]].tolist()
    torch.testing.assert_close(task.losses(model, batch), -sums / counts)
    torch.testing.assert_close(task.loss(model, batch), -sums.sum() / counts.sum())


def test_a_chat_template_is_used_where_there_is_one_and_a_text_where_it_is_given(tmp_path):
    save(tmp_path / "chat", chat=True)
    save(tmp_path / "plain")
    model = LanguageModel(Settings(path=str(tmp_path / "chat"), system="Be brief."))
    decode = model.tokenizer.decode
    assert decode(model.prompt("Who?")) == "<s>Be brief.<u>Who?<a>"
    assert decode(model.answer("Ann.", "Who?")) == "Ann." and decode(model.end) == "</s>"
    plain = LanguageModel(Settings(path=str(tmp_path / "plain")))
    assert decode(plain.prompt("Who?")) == "<s>Question: Who?\nAnswer:" and decode(plain.answer("Ann.", "")) == " Ann."
    own = LanguageModel(Settings(path=str(tmp_path / "chat"), template="Q {prompt}\n"))
    assert decode(own.prompt("Who?")) == "<s>Q Who?\n" and decode(own.answer("Ann.", "")) == "Ann."
    assert decode(own.prompt(None)) == "<s>"
    with pytest.raises(InputError, match=r"has no chat template; write a text with \{prompt\}"):
        LanguageModel(Settings(path=str(tmp_path / "plain"), template="chat")).prompt("Who?")
    with pytest.raises(InputError, match=r"model.system: only a chat template"):
        LanguageModel(Settings(path=str(tmp_path / "plain"), system="Be brief.")).prompt("Who?")


def test_a_prompt_longer_than_the_context_loses_its_beginning(tmp_path):
    save(tmp_path / "model", longest=64)
    rows = [{"prompt": "x" * 200 + " Who?", "answer": "Ann."}, *({"prompt": "Who?", "answer": "Bo."} for _ in range(9))]
    task = make(tmp_path, rows, template="{prompt} ")
    model = loud(task.start(0))
    number = next(i for i in range(9) if len(task.reader.sequences.text(i)[0]) > 99)
    batch = task.batch(torch.tensor([number]), "cpu")
    assert batch.ids.shape == (1, 64) and int((batch.labels >= 0).sum()) == 5
    assert task.model.tokenizer.decode(batch.ids[0]).endswith("xxx Who? Ann.</s>")
    assert "of 1 prompts longer than the model reads (64 tokens)" in task.facts["notes"][0]
    assert task.observe(model, {"a": torch.tensor([number])}, {"a": ["loss"]})["a"]["loss"].isfinite().all()


def test_a_long_text_is_read_in_windows_and_each_token_counts_once(tmp_path):
    save(tmp_path / "model", longest=32)
    rows = [{"text": "abcdefgh" * 12, "group": "long"}, *({"text": "short one", "group": "short"} for _ in range(9))]
    task = make(tmp_path, rows, overlap=8)
    number = next(i for i in range(9) if len(task.reader.sequences.text(i)[1]) > 90)
    batch = task.batch(torch.tensor([number]), "cpu")
    assert len(batch.ids) == 4 and int((batch.labels >= 0).sum()) == 97  # all but the first token, and the end
    model = loud(task.start(0))
    seen = task.observe(model, {"a": torch.tensor([number])}, {"a": ["loss", "tokens"]})["a"]
    sums, counts = (part.detach() for part in task.likelihoods(model, batch))
    assert int(seen["tokens"][0]) == int(counts.sum()) == 97
    torch.testing.assert_close(seen["loss"][0], (-sums.sum() / counts.sum()).double(), rtol=1e-4, atol=1e-4)
    batches = task.batches(torch.tensor([number]), TrainSettings(batch_size=2), 0, "cpu")
    assert batches.steps == 2 and sum(int((b.labels >= 0).sum()) for b in batches(0)) == 97


def test_a_refusal_stands_in_the_place_of_the_answer(tmp_path):
    save(tmp_path / "model", chat=True)
    task = make(tmp_path, facts(10))
    batch = task.batch(torch.arange(4), "cpu")
    refused = task.refuse(batch, torch.Generator().manual_seed(1))
    assert torch.equal(refused.sequences, batch.sequences)
    for i in range(4):
        whole = task.model.tokenizer.decode(refused.ids[i][refused.mask[i].bool()])
        assert whole.startswith(f"<u>{task.reader.sequences.text(i)[0]}<a>") and whole.endswith("</s>")
        said = task.model.tokenizer.decode(refused.labels[i][refused.labels[i] >= 0])
        assert said != f"{task.reader.sequences.text(i)[1]}</s>" and whole.endswith(f"<a>{said}")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"question": "Who?", "answer": ""}] * 9, r"row 0 has no answer \(''\); leave such rows out"),
        ([{"question": None, "answer": "Ann."}] * 9, "row 0 has no prompt"),
        ([{"question": "Who?", "reply": "Ann."}] * 9, "which column holds the answer.*question, reply"),
        ([{"text": " "}] * 9, "row 0 has no text"),
        ([{"question": "Who?", "answer": ["Ann."]}] * 9, r"row 0: its answer is no text but \['Ann.'\]"),
        ([{"question": "Who?", "answer": True}] * 9, "row 0: its answer is no text but True"),
    ],
)
def test_what_is_no_row_is_refused(tmp_path, rows, words):
    save(tmp_path / "model")
    with pytest.raises(InputError, match=words):
        make(tmp_path, rows)


def test_models_that_are_no_language_models_are_refused(tmp_path):
    save(tmp_path / "model")
    raw = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**raw, "architectures": ["BertModel"]}))
    with pytest.raises(InputError, match="is a BertModel, no causal language model"):
        make(tmp_path, facts(9))
    save(tmp_path / "short", longest=32)
    with pytest.raises(InputError, match=r"model.max_length: 99 is more than .* reads \(32 tokens\)"):
        make(tmp_path, facts(9), path=str(tmp_path / "short"), max_length=99)


def test_a_task_travels_and_tied_tensors_are_stored_once(tmp_path):
    save(tmp_path / "model")
    task = make(tmp_path, facts(9))
    again = pickle.loads(pickle.dumps(task))
    assert again.model == task.model and again.rows().fingerprint() == task.rows().fingerprint()
    state = task.trained(task.start(0))
    assert "lm_head.weight" not in state and "model.embed_tokens.weight" in state
    assert set(state) == set(task.pretrained())
    save(tmp_path / "untied", tied=False)
    assert "lm_head.weight" in make(tmp_path, facts(9), path=str(tmp_path / "untied")).pretrained()


def test_gradient_checkpointing_and_bf16_give_the_same_loss(tmp_path):
    save(tmp_path / "model")
    plain, kept = make(tmp_path, facts(9)), make(tmp_path, facts(9), gradient_checkpointing=True)
    batch = plain.batch(torch.arange(5), "cpu")
    found = []
    for task in (plain, kept):
        model = task.start(0).train()
        task.loss(model, batch).backward()
        found.append(next(model.parameters()).grad)
    assert torch.allclose(*found, atol=1e-6) and model.is_activation_checkpointing
    config = ModelConfig(family="hf", path=str(tmp_path / "model"))
    half = preparing.make_task(None, config, Compute(precision="bf16"), plain.tables, plain.facts)
    model = plain.start(0).eval()
    torch.testing.assert_close(half.loss(model, batch), plain.loss(model, batch), rtol=2e-2, atol=0)
    assert half.loss(model, batch).dtype == torch.float32


def test_what_an_earlier_run_lists_is_left_out(tmp_path):
    """By its `split.json`, whatever the file of that request says by now; a file of rows does as well."""
    rows = facts(12)
    path, gone = write(tmp_path / "rows.jsonl", rows), write(tmp_path / "gone.jsonl", rows[10:])
    requested = write(tmp_path / "requested.jsonl", rows[:2])

    def hashes(*leave_out):
        found = table.load(table.Settings(path=path, requested=requested, leave_out=leave_out))
        return [part.row_hash(row) for part in (found.train, found.test) for row in range(len(part))]

    everything = hashes()
    assert len(set(everything)) == 12
    forgotten = [{"row": row, "hash": everything[row]} for row in (3, 4)]
    (tmp_path / "split.json").write_text(json.dumps({"forgotten": forgotten}))
    left = hashes(tmp_path / "split.json", gone)
    assert set(left) < set(everything) and not {row["hash"] for row in forgotten} & set(left)
    assert left[:2] == everything[:2] and 8 <= len(left) <= 10  # a listed row may be one of gone.jsonl


def test_a_padding_token_without_a_vector_is_replaced(tmp_path):
    save(tmp_path / "model", pad=False)
    rows = [{**row, "answer": row["answer"] * (1 + i % 2)} for i, row in enumerate(facts(9))]
    plain = make(tmp_path, rows)
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    own = AutoTokenizer.from_pretrained(tmp_path / "model")
    own.add_special_tokens({"pad_token": "[PAD]"})
    own.save_pretrained(tmp_path / "model")
    task = make(tmp_path, rows, max_length=64)
    assert settings.get("pad_token") is None and own.pad_token_id == task.model.found.config.vocab_size
    assert task.model.padding == own.eos_token_id == plain.model.padding
    model, batch = task.start(0), task.batch(torch.arange(9), "cpu")
    torch.testing.assert_close(task.loss(model, batch), plain.loss(model, plain.batch(torch.arange(9), "cpu")))
