"""The Reader: what it says, what it counts, what it refuses, and that it streams."""

from __future__ import annotations

import json
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import CodingError, ConfigError, DataError
from plaudit.formats import Columns, Reader, read_groups
from plaudit.formats.reader import read_policy
from plaudit.group import Completion, Group, Preference, Ratings

GOOD: dict[str, Any] = {"prompt": "p", "chosen": "a", "rejected": "b"}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def failure(*args: Any, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught, Reader(*args, **options) as reader:
        list(reader)
    assert "\n" not in str(caught.value)
    return caught.value


def test_labels_that_come_late_in_a_file_of_rated_rows_are_no_extra(tmp_path: Path) -> None:
    rated = {"prompt": "p", "completions": ["a", "b"], "scores": [1, 2]}
    path = lines(tmp_path / "a.jsonl", *[rated] * 20, rated | {"labels": [{"better": 0, "worse": 1}]})
    with pytest.raises(DataError, match="scored rows, as the file began, got a row that reads as native"):
        list(read_groups(path))
    assert [group.labels[0].by for group in read_groups(path, format="scored")] == ["scores"] * 21


BALLOT: dict[str, Any] = {"prompt": "p", "response_a": "a", "response_b": "b"}


def test_ambiguous_votes_refuse_the_file_even_where_bad_rows_are_skipped(tmp_path: Path) -> None:
    """Keeping the rows that happen to be readable would keep unanimous 1s and drop every row with a 2."""
    rows = [BALLOT | {"votes": {"x": 1 + k % 2, "y": 1}} for k in range(20)]
    path = lines(tmp_path / "a.jsonl", *rows)
    error = failure(path, bad_rows=f"skip={tmp_path / 'bad.jsonl'}")
    assert isinstance(error, CodingError) and (error.line, error.field) == (1, "votes")
    assert str(path) in str(error) and "`scale`" in str(error)


def test_ambiguous_votes_that_come_late_refuse_the_file(tmp_path: Path) -> None:
    rows = [BALLOT | {"votes": {"x": "a", "y": "b"}}] * 20 + [BALLOT | {"votes": {"x": 0, "y": 1}}]
    error = failure(lines(tmp_path / "a.jsonl", *rows), bad_rows=f"skip={tmp_path / 'bad.jsonl'}")
    assert isinstance(error, CodingError) and error.line == 21


def test_signed_votes_are_read_in_rows_without_a_vote_below_zero(tmp_path: Path) -> None:
    rows = [BALLOT | {"votes": {"x": 1, "y": 0}}, BALLOT | {"votes": {"x": -1, "y": 0}}] + [
        BALLOT | {"votes": {"x": 1, "y": 2}}
    ] * 20
    groups = list(read_groups(lines(tmp_path / "a.jsonl", *rows)))
    assert [[(c.better, c.is_tie) for c in group.comparisons()] for group in groups[:3]] == [
        [(0, False), (0, True)], [(1, False), (0, True)], [(0, False), (0, False)],
    ]  # fmt: skip
    assert len(groups) == 22


def test_verdicts_in_an_unknown_code_refuse_the_file_even_where_bad_rows_are_skipped(tmp_path: Path) -> None:
    """Labels 0 and 1 in LLMBar's columns: the rows with 1 alone would all say that the first output is better."""
    rows = [{"input": "q", "output_1": "a", "output_2": "b", "label": k % 2} for k in range(20)]
    error = failure(lines(tmp_path / "a.jsonl", *rows), bad_rows=f"skip={tmp_path / 'bad.jsonl'}")
    assert isinstance(error, CodingError) and (error.line, error.field) == (1, "label")


RATED: dict[str, Any] = {"prompt": "p", "completions": ["a", "b"], "scores": [1, 2]}


def test_ratings_that_come_late_are_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *[RATED | {"scores": None}] * 8, *[RATED] * 100)
    with Reader(path) as reader:
        labels = [row.group.labels for row in reader]
    assert reader.dialect == "scored"
    assert (
        labels == [(Ratings(ratings=(None, None), by="scores"),)] * 8 + [(Ratings(ratings=(1, 2), by="scores"),)] * 100
    )


@pytest.mark.parametrize(
    ("first", "late", "field", "kind"),
    [
        ({"prompt": "p", "completions": ["a", "b"]}, RATED, "scores", "scored"),
        ({"prompt": "p", "completions": ["a", "b"]}, RATED | {"scores": None, "gold_scores": [1, 2]}, "gold_scores",
         "scored"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": []}, RATED, "scores", "scored"),
        (RATED, RATED | {"labels": {"better": 0, "worse": 1}}, "labels", "native"),
        (GOOD | {"chosen_model": "m", "rejected_model": "n"}, GOOD | {"votes": [1]}, "votes", "votes"),
        ({"chosen": "Human: a", "rejected": "Human: b"}, {"chosen": "Human: a", "rejected": "Human: b", "votes": [1]},
         "votes", "votes"),
        ({"chosen": "a", "rejected": "b"}, {"chosen": "Human: a", "rejected": "Human: b"}, None, "hh"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "scores": [1, 0]},
         {"prompt": "p", "response_1": "a", "response_2": "b", "scores": [1, 0], "winner": "model_b"}, "winner",
         "ppe-preference"),
        (GOOD, GOOD | {"completions": ["a", "b"], "scores": [1, 2]}, "scores", "scored"),
    ],
)  # fmt: skip
def test_label_columns_that_come_late_are_refused(
    tmp_path: Path, first: dict[str, Any], late: dict[str, Any], field: str | None, kind: str
) -> None:
    error = failure(lines(tmp_path / "a.jsonl", *[first] * 20, late))
    assert (error.line, error.field) == (21, field) and f"reads as {kind}. Force --format {kind}" in error.reason
    assert len(list(read_groups(lines(tmp_path / "b.jsonl", *[first] * 20)))) == 20


def test_rows_that_say_the_same_in_two_dialects_may_share_a_file(tmp_path: Path) -> None:
    named = GOOD | {"chosen_model": "m", "rejected_model": "n"}
    three = {"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    for name, rows in {
        "a": [*[GOOD] * 20, named],
        "b": [*[named] * 20, GOOD],
        "c": [*[GOOD | {"votes": [1]}] * 20, GOOD, named],
        "d": [*[three | {"chosen": ["a"]}] * 20, three],
    }.items():
        assert len(list(read_groups(lines(tmp_path / f"{name}.jsonl", *rows)))) == len(rows)


def test_ratings_that_come_late_in_a_csv_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cells = 'p,"[""a"",""b""]",'
    path.write_text("prompt,completions,scores\n" + f"{cells}\n" * 9 + f'{cells}"[1,2]"\n' * 9)
    assert [group.labels[0].indices() for group in read_groups(path)] == [(0, 1)] * 18
    assert [bool(list(group.comparisons())) for group in read_groups(path)] == [False] * 9 + [True] * 9


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"prompt": "p", "completions": ["a", "b"], "labels": 0}, "labels"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": False}, "labels"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": ""}, "labels"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": {}}, "labels"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": [], "meta": []}, "meta"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": [], "meta": 0}, "meta"),
        (RATED | {"scores": [1]}, "scores"),
        (RATED | {"scores": []}, "scores"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "response_4": "d", "scores": [1, 0]}, "scores"),
    ],
)
def test_values_that_only_look_like_nothing_are_refused(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    error = failure(lines(tmp_path / "a.jsonl", row))
    assert (error.line, error.field) == (1, field)


@pytest.mark.parametrize(
    "cell",
    [
        "[{'role': 'user', 'content': 'x'}]",
        "[{'content': 'x', 'role': 'user'}\n {'content': 'y', 'role': 'assistant'}]",
        '[{"role": "user", "role": "x", "content": "y"}]',
        '[{"role": "user", "content": "y"]}]',
    ],
)
def test_turns_in_csv_that_are_no_json_are_refused(tmp_path: Path, cell: str) -> None:
    """pandas writes Python's repr of a list; read as text, it would be scored as text."""
    path = tmp_path / "a.csv"
    path.write_text('prompt,chosen,rejected\np,a,b\n"' + cell.replace('"', '""') + '",a,b\n')
    error = failure(path)
    assert (error.line, error.field) == (3, "prompt") and "expected a list of turns as JSON" in error.reason


def test_text_in_csv_that_is_no_list_of_turns_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    texts = ["[{x}]", "[{}]", "[ ]", "[{'a': 1}]", "[{'role'}]", "see [{'role': 'user'}] there"]
    path.write_text("chosen,rejected\n" + "".join(f'"{text}",b\n' for text in texts))
    assert [group.completions[0].text for group in read_groups(path)] == texts


def test_bytes_of_a_csv_file_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"chosen,rejected\n" + "é,b\n".encode() * 700 + b"\xe9,b\n" + b"a,b\n" * 5)
    error = failure(path)
    assert error.line == 702 and "0xE9" in error.reason


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_verdict_may_be_a_number_as_tables_give_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.csv":
        path.write_text("input,output_1,output_2,label\nq,a,b,1\nq,a,b,2\n")
    else:
        lines(path, *[{"input": "q", "output_1": "a", "output_2": "b", "label": label} for label in (1.0, 2.0)])
    assert [group.labels[0].indices() for group in read_groups(path)] == [(0, 1), (1, 0)]


def test_scores_that_are_no_list_are_refused(tmp_path: Path) -> None:
    error = failure(lines(tmp_path / "a.jsonl", RATED | {"scores": {"helpful": [1, 2]}}))
    assert (error.line, error.field) == (1, "scores")


def test_chosen_and_rejected_beside_completions_are_a_preference(tmp_path: Path) -> None:
    """Read as native rows, the columns would be extras, and the preference in them ignored."""
    [group] = read_groups(lines(tmp_path / "a.jsonl", GOOD | {"completions": ["a", "b"]}))
    assert group.labels == (Preference(better=0, worse=1),)


def test_text_parts_are_read_as_text_and_other_parts_are_refused(tmp_path: Path) -> None:
    def turns(role: str, *texts: str) -> list[dict[str, Any]]:
        return [{"role": role, "content": [{"type": "text", "text": text} for text in texts]}]

    row = {"prompt": "p", "chosen": turns("user", "p") + turns("assistant", "Hello ", "there"), "rejected": "b"}
    row["rejected"] = turns("user", "p") + turns("assistant", "b")
    [group] = read_groups(lines(tmp_path / "a.jsonl", row))
    # The prompt is found again in the conversations, and read once.
    assert group == Group(
        prompt=({"role": "user", "content": "p"},),
        completions=tuple(Completion(content=({"role": "assistant", "content": t},)) for t in ("Hello there", "b")),
        labels=(Preference(better=0, worse=1),),
    )
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    error = failure(lines(tmp_path / "b.jsonl", row, {"prompt": [image], "chosen": "a", "rejected": "b"}))
    assert (error.line, error.field) == (2, "prompt") and "got a part of type 'image_url'" in error.reason


def test_the_choice_of_a_dialect_is_said(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", GOOD, GOOD)
    with Reader(path) as reader:
        rows = list(reader)
    assert reader.notes == [
        f"{path}: read as TRL preference rows (columns chosen, prompt, rejected; force another with --format)"
    ]
    assert reader.dialect == "preference" and reader.num_read == 2 and reader.num_bad == 0
    assert [(row.file, row.line, row.raw) for row in rows] == [(str(path), 1, GOOD), (str(path), 2, GOOD)]


def test_a_forced_format_and_the_users_columns_are_said(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"q": "p", "good": "a", "bad": "b"})
    columns = Columns(prompt="q", chosen="good", rejected="bad")
    reader = Reader(path, columns=columns)
    assert next(iter(reader)).group.prompt == "p"
    assert "columns bad, good" in reader.notes[0]
    forced = Reader(path, format="trl", columns=columns)
    assert len(list(forced)) == 1 and "as --format says" in forced.notes[0]


def test_each_file_is_its_own_dialect(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.jsonl", GOOD)
    two = lines(tmp_path / "two.jsonl", {"prompt": "p", "completions": ["a"], "labels": []})
    reader = Reader([one, two])
    assert [len(row.group.completions) for row in reader] == [2, 1] and len(reader.notes) == 2


def test_unknown_columns_name_what_came_and_what_to_do(tmp_path: Path) -> None:
    error = failure(lines(tmp_path / "a.jsonl", {"question": "p", "better": "a"}))
    assert error.file == str(tmp_path / "a.jsonl")
    for word in ("question, better", "ultrafeedback", "preference", "--chosen-key", "--format"):
        assert word in error.reason


def test_broken_json_names_its_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD, GOOD, '{"prompt": "p", "chosen"', GOOD)
    error = failure(path)
    assert (error.file, error.line) == (str(path), 3) and "broken JSON" in error.reason
    reader = Reader(path)
    assert [record.line for record in islice(reader.records(), 2)] == [1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1, 2]", "a list came, a JSON object was needed"),
        ('"text"', "a text came"),
        ('{"prompt": "p", "prompt": "q"}', "the key 'prompt' came twice"),
        ('{"margin": NaN}', "NaN came"),
        ('{"margin": -Infinity}', "-Infinity came"),
        ('{"margin": 1e999}', "too large"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair (U+D800)"),
        ("[" * 100_000, "nested too deeply"),
        ('{"margin": ' + "9" * 5000 + "}", "Python refuses"),
        ('{"prompt": "p", "rejected": "b"}', "text or a list of turns was needed"),
        ('{"prompt": "p", "chosen": null, "rejected": "b"}', "null came, text or a list of turns was needed"),
        ('{"chosen": "a", "rejected": "b", "margin": "big"}', "a text ('big') came, a number was needed"),
        ('{"chosen": "a", "rejected": "b", "votes": [1]}', "Force --format votes"),
    ],
)
def test_a_bad_row_is_one_sentence_with_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    path = lines(tmp_path / "a.jsonl", *[GOOD] * 9, "", line)
    error = failure(path)
    assert (error.file, error.line) == (str(path), 11)
    assert said in str(error)


def test_bytes_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "\xff"}\n')
    error = failure(path)
    assert error.line == 2 and "0xFF" in error.reason and "UTF-8" in error.reason


def test_a_row_without_completions_names_the_field(tmp_path: Path) -> None:
    row = {"prompt": "p", "completions": ["a"], "labels": []}
    error = failure(lines(tmp_path / "a.jsonl", row, {"prompt": "p", "labels": []}))
    assert (error.line, error.field) == (2, "completions") and "it is missing" in error.reason
    error = failure(lines(tmp_path / "b.jsonl", {"prompt": "p"}))
    assert "columns prompt came" in error.reason


def test_a_deep_row_is_one_sentence(tmp_path: Path) -> None:
    deep = json.dumps(GOOD)[:-1] + ', "x": ' + "[" * 700 + "]" * 700 + "}"
    assert len(list(Reader(lines(tmp_path / "a.jsonl", deep)))) == 1


def test_bad_rows_are_set_aside_with_reasons_and_counted(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", "{broken", GOOD, {"prompt": "p"}, GOOD, "[]")
    aside = tmp_path / "bad.jsonl"
    with Reader(path, bad_rows=f"skip={aside}") as reader:
        assert [row.line for row in reader] == [2, 4]
    assert (reader.num_read, reader.num_bad) == (5, 3)
    assert reader.notes[-1] == f"3 of 5 rows were bad and were written to {aside}"
    said = [json.loads(line) for line in aside.read_text().splitlines()]
    # A line that is no JSON is known when it is read, a row that says nothing only when it is interpreted.
    assert sorted(item["line"] for item in said) == [1, 3, 5]
    by_line = {item["line"]: item for item in said}
    assert by_line[1]["row"] == "{broken" and by_line[3]["row"] == {"prompt": "p"} and by_line[3]["field"] == "chosen"
    assert all(item["file"] == str(path) and item["reason"] for item in said)


def test_records_and_interpret_keep_rows_and_groups_apart(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD, GOOD | {"margin": "x"}, GOOD)
    with Reader(path, bad_rows=f"skip={tmp_path / 'bad.jsonl'}") as reader:
        rows = [reader.interpret(record) for record in reader.records()]
    assert [row and row.line for row in rows] == [1, None, 3] and reader.num_bad == 1


def test_when_every_row_is_bad_that_is_an_error(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD | {"margin": "x"}, GOOD | {"margin": "y"})
    error = failure(path, bad_rows=f"skip={tmp_path / 'bad.jsonl'}")
    assert "all 2 rows were bad" in str(error)


def test_bad_rows_never_overwrite_what_is_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(ConfigError, match="would overwrite"):
        Reader(path, bad_rows=f"skip={path}")
    assert path.read_text() == json.dumps(GOOD) + "\n"
    with pytest.raises(ConfigError, match="error or skip=PATH"):
        Reader(path, bad_rows="ignore")


def test_what_is_missing_or_empty_raises_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_groups(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="the file is empty"):
        read_groups(tmp_path / "empty.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match="no rows came"):
        read_groups(tmp_path / "blank.jsonl")
    with pytest.raises(DataError, match="no file matches"):
        read_groups(str(tmp_path / "*.parquet"))
    with pytest.raises(ConfigError, match="no data came"):
        read_groups([])


def test_votes_that_begin_late_are_found_or_refused(tmp_path: Path) -> None:
    vote = GOOD | {"votes": [1, -1]}
    early = Reader(lines(tmp_path / "a.jsonl", GOOD, vote))
    assert [len(row.group.labels) for row in early] == [1, 2] and early.dialect == "votes"
    late = lines(tmp_path / "b.jsonl", *[GOOD] * 20, vote)
    assert "Force --format votes" in str(failure(late))
    forced = [row.group for row in Reader(late, format="preference")]
    assert len(forced) == 21 and forced[20].meta == {"votes": [1, -1]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_reading_does_not_hold_the_file(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, "x" * 50_000
    with path.open("w") as file:
        if name == "a.csv":
            file.write("prompt,chosen,rejected\n" + f"p,{text},b\n" * 800)
        elif name == "a.json":
            file.write("[" + ",".join([json.dumps(GOOD | {"chosen": text})] * 800) + "]")
        else:
            file.write((json.dumps(GOOD | {"chosen": text}) + "\n") * 800)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_groups(path)) == 800
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 40 MB of file; a JSON document is read in pieces of 4 MiB.
    assert peak < 30e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_memory_does_not_grow_with_a_large_file(tmp_path: Path, name: str) -> None:
    from plaudit.formats import RowWriter

    peaks = []
    for num_rows in (20_000, 200_000):
        with RowWriter(tmp_path / name) as writer:
            for i in range(num_rows):
                writer.write(GOOD | {"chosen": f"{i} " + "x" * 500})
        tracemalloc.start()
        assert sum(1 for _ in read_groups(tmp_path / name)) == num_rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 + 1e6


@pytest.mark.parametrize("bad_rows", ["skip=", "skip", "keep=a.jsonl", "=a.jsonl", ""])
def test_a_policy_for_bad_rows_names_skip_and_a_path(bad_rows: str) -> None:
    with pytest.raises(ConfigError, match="skip=PATH"):
        read_policy(bad_rows)
    assert read_policy("error") is None and read_policy("skip=a=b.jsonl") == "a=b.jsonl"


def test_bad_rows_do_not_overwrite_a_file_that_is_read_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{broken\n", encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    for read, aside in (("link.jsonl", "rows.jsonl"), ("rows.jsonl", "link.jsonl")):
        with pytest.raises(ConfigError, match="would overwrite it"):
            list(Reader(str(tmp_path / read), bad_rows=f"skip={tmp_path / aside}"))
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == "{broken\n"


@pytest.mark.parametrize("names", ["ann", [1, 2], ["ann", None], {"a": 1, "b": 2}])
def test_annotators_are_a_list_of_names(tmp_path: Path, names: object) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "votes": [1, -1], "annotators": names}
    (tmp_path / "votes.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="a list of names"):
        list(Reader(str(tmp_path / "votes.jsonl")))
