"""Rows of all forms that people have them in, and what is said of rows to forget beside rows to keep."""

import json

import pytest
from tiny_language import facts, save, write

from negmerge.errors import InputError
from negmerge.experiment.direct import Request
from negmerge.experiment.direct_language import question_data
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.causal_lm.sources import table
from negmerge.tasks.settings import DataConfig, ModelConfig

ROWS = facts(16)
GONE = [row for row in ROWS if row["author"] == "author 1"]


def as_json(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(folder, rows, requested=None, **settings):
    """The train table, and the notes, of a file of rows."""
    path = write(folder / "rows.jsonl", rows)
    asked = None if requested is None else write(folder / "requested.jsonl", requested)
    source = table.load(table.Settings(path=path, requested=asked, test=path, **settings))
    return source.train, source


def data_of(folder, forget, kept=ROWS, columns=None):
    asked = as_json(folder / "forget.json", forget)
    return question_data(asked, [write(folder / "kept.jsonl", kept)], [], None, columns)


def test_columns_of_other_names_are_those_of_the_request(tmp_path):
    renamed = [{"Q": row["question"], "A": row["answer"]} for row in ROWS]
    columns = {"prompt": "q", "answer": "A"}
    save(tmp_path / "model")
    write(tmp_path / "forget.jsonl", renamed[:4]), write(tmp_path / "kept.jsonl", renamed)
    files = {"forget": tmp_path / "forget.jsonl", "retain": tmp_path / "kept.jsonl"}
    config = Request(tmp_path / "model", **files, columns=columns).config()
    assert config["data"]["columns"] == columns
    with pytest.raises(InputError, match="which column holds the prompt"):
        Request(tmp_path / "model", **files).config()
    settings = {key: value for key, value in config["data"].items() if key not in ("source", "forget")}
    train = table.load(table.Settings(**settings)).train
    assert train.prompts[:4] == tuple(row["question"] for row in ROWS[:4])


def test_capitals_of_columns_do_not_matter_where_one_is_meant(tmp_path):
    found, _ = read(tmp_path, [{"Question": row["question"], "ANSWER": row["answer"], "id": 1} for row in ROWS])
    assert found.prompts[0] == ROWS[0]["question"] and found.answers[0] == ROWS[0]["answer"]
    with pytest.raises(InputError, match="which column holds the prompt"):
        read(tmp_path, [{"QUESTION": "Who?", "Question": "Who?", "answer": "Ann."}] * 9)


def test_the_input_of_an_instruction_stands_behind_it(tmp_path):
    rows = [{"instruction": "Say where.", "input": row["question"] if i else "", "output": row["answer"]}
            for i, row in enumerate(ROWS)]  # fmt: skip
    found, _ = read(tmp_path, rows)
    assert found.prompts[:2] == ("Say where.", f"Say where.\n\n{ROWS[1]['question']}")
    assert read(tmp_path, rows, columns={"input": "none"})[0].prompts[1] == "Say where."
    chosen = {"prompt": "instruction", "input": "input"}
    assert read(tmp_path, rows, columns=chosen)[0].prompts == found.prompts
    other = [{"question": row["question"], "input": "x", "output": row["answer"]} for row in ROWS]
    assert read(tmp_path, other)[0].prompts[0] == ROWS[0]["question"]
    assert "'input' stands behind its prompt, after a blank line" in data_of(tmp_path, rows[:3], rows)[2][0]


def test_numbers_are_texts(tmp_path):
    found, _ = read(tmp_path, [{"question": i, "answer": i + (0.5 if i % 2 else 1.0)} for i in range(9)])
    assert found.prompts[:2] == ("0", "1") and found.answers[:2] == ("1", "1.5")


@pytest.mark.parametrize("value", [None, ["a", "b"]])
def test_groups_are_left_out_where_a_row_has_none_unless_they_are_asked_for(tmp_path, value):
    rows = [{**row, "author": value if i == 3 else row["author"]} for i, row in enumerate(ROWS)]
    found, source = read(tmp_path, rows)
    assert found.classes == ("all",)
    assert source.notes[0].endswith(f"rows are not told by the groups in 'author': row 3 has {value!r}")
    with pytest.raises(InputError, match="row 3 has no group"):
        read(tmp_path, rows, columns={"group": "author"})
    model = ModelConfig(family="hf", path=str(tmp_path / "model"))
    data = DataConfig(source="table", path=str(tmp_path / "rows.jsonl"), forget={"groups": ["author 1"]})
    with pytest.raises(InputError, match=r"row 3 has .*, so no group can be named"):
        preparing.load_data(data, model)


def test_a_row_of_the_request_counts_once_and_white_space_does_not_count(tmp_path):
    loose = [{**row, "answer": row["answer"] + "\n", "question": " " + row["question"]} for row in ROWS]
    _, rows, assumed = data_of(tmp_path, [*GONE, *GONE[:2], {**GONE[0], "answer": GONE[0]["answer"] + " "}], loose)
    said = " ".join(assumed)
    assert rows == len(GONE) and f"{len(GONE)} to forget" in said
    assert "3 of the rows to forget stand there twice, and count once" in said
    assert f"of the rows to forget {len(GONE)} stand in {tmp_path / 'kept.jsonl'}, too, and are taken out" in said
    found, _ = read(tmp_path, loose, [*GONE, *GONE[:2]])
    assert len(found) == len(ROWS) and sum(found.columns["requested"]) == len(GONE)
    assert len({found.row_hash(row) for row in range(len(found))}) == len(ROWS)


def test_a_kept_row_that_answers_a_forgotten_prompt_otherwise_is_said(tmp_path):
    kept = [*ROWS, {**GONE[0], "answer": "Nowhere."}]
    (note,) = read(tmp_path, kept, GONE)[1].notes
    assert "1 row has the prompt of a row to forget and another answer" in note and GONE[0]["question"] in note
    assert read(tmp_path, ROWS, GONE)[1].notes == ()


def test_nothing_left_to_keep_is_said_so(tmp_path):
    with pytest.raises(InputError, match="all of its rows are to be forgotten or left out"):
        read(tmp_path, GONE, GONE)


def test_a_list_of_ids_names_rows_of_the_table(tmp_path):
    kept = [{**row, "id": f"q{i}"} for i, row in enumerate(ROWS)]
    path, listed = write(tmp_path / "kept.jsonl", kept), as_json(tmp_path / "ids.txt", "q1\nq5\nq9\nq1\n")
    data, rows, assumed = question_data(listed, [path], [], None)
    assert rows == 3 and "ids.txt has 3 to forget" in assumed[0]
    settings = {key: value for key, value in data.items() if key not in ("source", "forget")}
    source = table.load(table.Settings(**settings))
    assert source.train.ids[:3] == ("q1", "q5", "q9") and sum(source.train.columns["requested"]) == 3
    assert not {"q1", "q5", "q9"} & {*source.train.ids[3:], *source.test.ids}
    assert len(source.train) + len(source.test) == len(ROWS)
    with pytest.raises(InputError, match="1 of 2 lines name no row"):
        question_data(as_json(tmp_path / "ids.txt", "q1\nq99\n"), [path], [], None)
    with pytest.raises(InputError, match=r"is a list of ids, but the rows of .* have none"):
        question_data(listed, [write(tmp_path / "kept.jsonl", ROWS)], [], None)
    renamed = [{**row, "key": f"q{i}"} for i, row in enumerate(ROWS)]
    path = write(tmp_path / "kept.jsonl", renamed)
    assert question_data(as_json(tmp_path / "ids.txt", "q2"), [path], [], None, {"id": "key"})[1] == 1
    texts = as_json(tmp_path / "texts.txt", "text\nOnce upon a time.\nThe end.\n")
    assert question_data(texts, [write(tmp_path / "kept.jsonl", [{"text": "A tale."}])], [], None)[1] == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([[row["question"], row["answer"]] for row in GONE], "row 0 is a list, not an object"),
        ([row["question"] for row in GONE], "row 0 is a text, not an object"),
        ([], "has no rows; give prompts with answers, or texts"),
        ({key: [row[key] for row in GONE] for key in GONE[0]}, "holds one object of columns or of lists .question"),
        ({"data": GONE}, r"holds one object of columns or of lists \(data\), no rows"),
    ],
)
def test_json_of_another_form_is_one_true_line(tmp_path, content, words):
    with pytest.raises(InputError, match=words) as error:
        data_of(tmp_path, content)
    assert "prompt" in str(error.value) and "text" in str(error.value) and "\n" not in str(error.value)


def test_a_row_to_forget_is_written_as_it_was_kept_and_an_earlier_list_goes_by_its_hash(tmp_path):
    spaced = [{**row, "answer": f"{row['answer']}  "} for row in GONE]
    train, _ = read(tmp_path, ROWS, spaced)
    assert train.answers[: len(GONE)] == tuple(row["answer"] for row in GONE)
    forgotten = [{"row": row, "hash": train.row_hash(row)} for row in range(len(GONE))]
    (tmp_path / "split.json").write_text(json.dumps({"forgotten": forgotten}))
    others = [row for row in ROWS if row not in GONE]
    left, source = read(tmp_path, ROWS, others[:2], leave_out=[tmp_path / "split.json"])
    assert len(left) == len(others) and not source.notes
    _, source = read(tmp_path, others, others[:2], leave_out=[tmp_path / "split.json"])
    assert f"none of the {len(GONE)} rows that" in source.notes[0] and "split.json lists" in source.notes[0]


def test_unseen_rows_that_are_kept_are_not_unseen(tmp_path):
    def assumed(unseen):
        kept = write(tmp_path / "kept.jsonl", ROWS)
        return question_data(as_json(tmp_path / "f.json", GONE), [kept], [], write(tmp_path / "u.jsonl", unseen))[2][-1]

    with pytest.raises(InputError, match=r"all rows of --unseen .* give rows that the model was never trained on"):
        assumed(ROWS[:4])
    new = facts(8, seed=1)
    assert assumed(new).endswith("they are tested on")
    assert "3 of them stand among what is kept, and are not unseen" in assumed([*new, *ROWS[:3]])
