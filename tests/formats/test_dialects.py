"""Each dialect by example: the rows as they stand on the hub, and the beliefs that they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from plaudit.errors import CodingError, ConfigError, DataError
from plaudit.formats import DIALECTS, Columns, detect_dialect, find_dialect
from plaudit.formats.preference import vote_label
from plaudit.formats.transcript import write_transcript
from plaudit.group import Comparison, Completion, Group, Preference, Ranking, Ratings, Tie, pair

U = {"role": "user", "content": "2+2?"}
GOOD = {"role": "assistant", "content": "4"}
BAD = {"role": "assistant", "content": "5"}
WIN = Preference(better=0, worse=1)

ROWS: dict[str, dict[str, Any]] = {
    "ultrafeedback": {
        "source": "sharegpt", "instruction": "2+2?", "models": ["m", "n"],
        "completions": [
            {"model": "m", "response": "4", "overall_score": 8.5, "annotations": {"honesty": {"Rating": "5"}}},
            {"model": "n", "response": "5", "overall_score": None, "fine-grained_score": 1.5},
        ],
    },
    "native": {"id": "q1", "prompt": [U], "completions": ["4", [BAD]], "labels": [{"order": [0, 1], "by": "gpt"}]},
    "scored": {"prompt": "2+2?", "completions": ["4", "5"], "scores": [0.25, None], "unscored": [None, "too long"]},
    "ballots": {"prompt": [U], "response_a": "4", "response_b": "5", "votes": {"x": 2, "y": 0}, "scale": "2 a .. -2 b"},
    "ppe-preference": {
        "question_id": "q", "model_a": "m", "model_b": "n", "winner": "model_b",
        "prompt": "2+2?", "response_1": "5", "response_2": "4",
    },
    "ppe-correctness": {
        "question_id": "q", "prompt": "2+2?", "response_1": "4", "response_2": "5", "response_3": "four",
        "scores": [True, False, True], "mean_score": 0.66,
    },
    "judgebench": {
        "pair_id": "p", "original_id": "o", "source": "mmlu", "question": "2+2?", "response_model": "m",
        "response_A": "5", "response_B": "4", "label": "B>A",
    },
    "llmbar": {"input": "2+2?", "output_1": "4", "output_2": "5", "label": 1},
    "hhh": {"input": "2+2?", "targets": {"choices": ["5", "4"], "labels": [0, 1]}},
    "rmb-pairwise": {
        "pair_uid": "1", "conversation_input": [U], "chosen": {"llm_name": "m", "answer": "4"},
        "reject": {"llm_name": "n", "answer": "5"}, "category_path": "Pairwise_set/Harmlessness/S1",
    },
    "rmb-bon": {
        "bon_uid": "1", "conversation_input": [U], "bon_best": {"llm_name": "m", "answer": "4"},
        "loser_list": [{"llm_name": "n", "answer": "5"}, {"llm_name": "o", "answer": "6"}],
        "category_path": "BoN_set/Helpfulness/Code/Debugging",
    },
    "rmbench": {"id": "7", "prompt": "2+2?", "chosen": ["4", "is 4", "**4**"], "rejected": ["5", "is 5", "**5**"]},
    "rewardbench2": {
        "id": "7", "prompt": "2+2?", "chosen": ["4"], "rejected": ["5", "6", "7"], "num_correct": 1, "num_incorrect": 3,
        "total_completions": 4, "models": ["m", "n"], "subset": "Math", "additional_metadata": {"method": "x"},
    },
    "votes": {
        "prompt": [U], "chosen": "4", "rejected": "5", "votes": [1, -2, 0],
        "annotators": ["x", "y", "z"], "margin": 1.0,
    },
    "rewardbench": {
        "prompt": "2+2?", "chosen": "4", "chosen_model": "m", "rejected": "5", "rejected_model": "n",
        "subset": "math-prm", "id": 17,
    },
    "hh": {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5 "},
    "preference": {"chosen": [U, GOOD], "rejected": [U, BAD], "margin": 2},
}  # fmt: skip

LABELS = {
    "ultrafeedback": (Ratings(ratings=(8.5, None), by="overall_score"),),
    "native": (Ranking(order=(0, 1), by="gpt"),),
    "scored": (Ratings(ratings=(0.25, None), by="scores"),),
    "ballots": (Preference(better=0, worse=1, margin=2, by="x"), Tie(tie=(0, 1), by="y")),
    "ppe-preference": (Preference(better=1, worse=0),),
    "ppe-correctness": (Ratings(ratings=(1.0, 0.0, 1.0), by="scores"),),
    "judgebench": (Preference(better=1, worse=0),),
    "llmbar": (WIN,),
    "hhh": (Preference(better=1, worse=0),),
    "rmb-pairwise": (WIN,),
    "rmb-bon": (WIN, Preference(better=0, worse=2)),
    "rmbench": tuple(Preference(better=i, worse=j) for i in range(3) for j in range(3, 6)),
    "rewardbench2": tuple(Preference(better=0, worse=j) for j in (1, 2, 3)),
    "votes": (
        Preference(better=0, worse=1, by="x"),
        Preference(better=1, worse=0, margin=2, by="y"),
        Tie(tie=(0, 1), by="z"),
    ),
    "rewardbench": (WIN,),
    "hh": (WIN,),
    "preference": (Preference(better=0, worse=1, margin=2),),
}


def test_there_is_an_example_for_every_dialect() -> None:
    assert ROWS.keys() == LABELS.keys() == DIALECTS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_recognised_and_says_its_labels(name: str) -> None:
    dialect = detect_dialect([ROWS[name]])
    assert dialect.name == name
    group = dialect.read(ROWS[name])
    assert group.labels == LABELS[name]
    assert "2+2?" in str(group.prompt)
    assert name in dialect.describe() and dialect.needs[0] in dialect.describe()


@pytest.mark.parametrize("name", ROWS)
def test_no_column_is_lost_on_the_way_to_native_rows_and_back(name: str) -> None:
    group = DIALECTS[name].read(ROWS[name])
    again = DIALECTS["native"].read(DIALECTS["native"].write(group))
    assert again == group
    assert DIALECTS[name].read(DIALECTS[name].write(again)) == group


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_was_scored_is_the_same_dialect_as_before(name: str) -> None:
    num = len(DIALECTS[name].read(ROWS[name]).completions)
    scored = ROWS[name] | {"scores": [0.5] * num, "chosen_score": 1.0, "rejected_score": 0.5, "unscored": [None] * num}
    if DIALECTS[name].is_rated:
        scored["gold_scores"] = ROWS[name]["scores"]
    assert detect_dialect([scored]).name == name
    group = DIALECTS[name].read(scored)
    assert group.labels == LABELS[name] and group.meta["scores"] == [0.5] * num
    if DIALECTS[name].is_rated:
        assert DIALECTS[name].write(group) == scored


@pytest.mark.parametrize("name", [name for name in DIALECTS if DIALECTS[name].is_rated])
def test_ratings_are_read_from_where_scoring_keeps_them(name: str) -> None:
    scores = ROWS[name]["scores"]
    for gold in ({"gold_scores": None}, {}):
        assert DIALECTS[name].read(ROWS[name] | gold).labels == LABELS[name]
    without = {key: value for key, value in ROWS[name].items() if key != "scores"} | {"gold_scores": scores}
    assert detect_dialect([without]).name == name
    assert DIALECTS[name].read(without).labels == LABELS[name]
    with pytest.raises(DataError) as caught:
        DIALECTS[name].read(ROWS[name] | {"gold_scores": ["high"] * len(scores)})
    assert caught.value.field == "gold_scores"
    meta = {"gold_scores": [9] * len(scores)}
    with pytest.raises(DataError, match="its meta holds 'gold_scores', which would be read as its ratings"):
        DIALECTS[name].write(replace(DIALECTS[name].read(ROWS[name]), meta=meta))


def test_native_rows_without_labels_become_rated_by_their_scores() -> None:
    row = {"prompt": "p", "completions": ["a", "b"]}
    assert detect_dialect([row]).name == "native" and DIALECTS["native"].read(row).labels == ()
    assert detect_dialect([row | {"scores": [1, 2]}]).name == "scored"
    assert detect_dialect([row | {"scores": [1, 2], "labels": []}]).name == "native"


def test_leading_turns_in_common_are_the_prompt() -> None:
    group = DIALECTS["preference"].read({"chosen": [U, GOOD], "rejected": [U, BAD]})
    assert group.prompt == (U,) and group.completions[0].content == (GOOD,) and group.completions[1].content == (BAD,)
    same = DIALECTS["preference"].read({"chosen": [U, GOOD], "rejected": [U, GOOD]})
    assert same.prompt == (U,) and same.completions[0].content == (GOOD,)


def test_a_prompt_that_the_answers_repeat_is_read_once() -> None:
    for prompt in ([U], "2+2?"):
        group = DIALECTS["preference"].read({"prompt": prompt, "chosen": [U, GOOD], "rejected": [U, BAD]})
        assert group.prompt == (U,) and group.completions[0].content == (GOOD,)


def test_plain_texts_without_a_prompt_stay_whole() -> None:
    group = DIALECTS["preference"].read({"chosen": "Q: 2+2? A: 4", "rejected": "Q: 2+2? A: 5"})
    assert group == pair("", "Q: 2+2? A: 4", "Q: 2+2? A: 5")


@pytest.mark.parametrize(
    "turn", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q", "name": "Ann"}]
)
def test_a_transcript_holds_plain_turns_of_users_and_assistants_only(turn: dict[str, str]) -> None:
    group = Group(prompt=[turn, {"role": "user", "content": "Q"}], completions=(Completion(content="A"),))
    with pytest.raises(DataError, match="transcripts hold text of users and assistants"):
        write_transcript(group, 0)


@pytest.mark.parametrize("name", ["preference", "hh"])
def test_a_labels_annotator_is_written_where_the_format_has_a_column(name: str) -> None:
    group = pair("Q", "A", "B")
    named = replace(group, labels=(replace(group.labels[0], by="ann"),))
    row = find_dialect(name).to_row(named)
    assert row.get("by") == "ann"


def test_a_transcript_becomes_turns() -> None:
    text = "\n\nHuman: hi\n\nAssistant: Hello!\n\nHuman: 2+2?\n\nAssistant: "
    group = DIALECTS["hh"].read({"chosen": text + "4\n\nreally", "rejected": text + "5"})
    assert [turn["content"] for turn in group.prompt if not isinstance(turn, str)] == ["hi", "Hello!", "2+2?"]
    assert group.completions[0].content == ({"role": "assistant", "content": "4\n\nreally"},)
    with pytest.raises(DataError, match="transcript that begins with 'Human:'"):
        DIALECTS["hh"].read({"chosen": "x", "rejected": text})


def test_the_users_column_names_are_read_and_written() -> None:
    columns = Columns(prompt="question", chosen="good", rejected="bad")
    row = {"question": "2+2?", "good": "4", "bad": "5", "prompt": "another", "k": 1}
    assert detect_dialect([row], columns).name == "preference"
    group = DIALECTS["preference"].read(row, columns)
    assert group == pair("2+2?", "4", "5", meta={"prompt_column": "another", "k": 1})
    written = DIALECTS["preference"].write(group, columns)
    assert DIALECTS["preference"].read(written, columns) == group and written["good"] == "4"
    with pytest.raises(
        DataError, match="named as the chosen column and is missing; the columns that came are a, b"
    ) as caught:
        DIALECTS["preference"].read({"a": 1, "b": 2}, Columns(chosen="good"))
    assert caught.value.field == "good"


def test_ballots_are_read_only_where_the_side_is_certain() -> None:
    row = {"prompt": "p", "response_a": "a", "response_b": "b"}
    read = DIALECTS["ballots"].read
    coded = read(row | {"votes": {"x": 2, "y": 1, "z": 0}, "scale": "1 a better, 2 b better, 0 tie"})
    assert [(c.better, c.is_tie, c.by) for c in coded.comparisons()] == [
        (1, False, "x"),
        (0, False, "y"),
        (0, True, "z"),
    ]
    words = read({"id": "1", "votes": {"x": "a1", "y": "a2", "z": "equal"}})
    assert [(c.better, c.is_tie) for c in words.comparisons()] == [(0, False), (1, False), (0, True)]
    with pytest.raises(CodingError, match="column `scale`"):
        read(row | {"votes": {"x": 2, "y": 1}})
    with pytest.raises(CodingError, match="got 'maybe'"):
        read(row | {"votes": {"x": "maybe"}})


@pytest.mark.parametrize("votes", [{"x": 0, "y": 1}, {"x": 1}, {"x": 0}, {"x": 1.0, "y": None}, {"x": 3, "y": 3}])
def test_ballots_without_a_sign_or_a_scale_are_refused(votes: dict[str, Any]) -> None:
    row = {"prompt": "p", "response_a": "a", "response_b": "b", "votes": votes}
    for scale in ({}, {"scale": None}, {"scale": ""}):
        with pytest.raises(CodingError, match="expected signed votes or a scale") as caught:
            DIALECTS["ballots"].read(row | scale)
        assert caught.value.field == "votes" and "'1 a better, 2 b better, 0 tie'" in caught.value.reason


@pytest.mark.parametrize(
    ("scale", "votes", "expected"),
    [
        ("0 a better, 1 b better", {"x": 0, "y": 1}, [1, -1]),
        ("1 A better, 2 B better, 0 a tie", {"x": 1, "y": 2, "z": 0}, [1, -1, 0]),
        ("1 a, 2 tie, 3 b", {"x": 1, "y": 2, "z": 3}, [1, 0, -1]),
        ("1 a, -1 b, 2 tie", {"x": 1, "y": -1, "z": 2}, [1, -1, 0]),
        ("2 a clearly better .. 0 tie .. -2 b clearly better", {"x": 2, "y": -1, "z": 0, "w": 1}, [2, -1, 0, 1]),
        ("-2 a clearly better .. 2 b clearly better", {"x": -2, "y": 1, "z": 0}, [2, -1, 0]),
        ("over 0 a better, 0 tie, under 0 b better", {"x": 0, "y": 1}, [0, 1]),
    ],
)
def test_a_scale_decides_what_a_vote_means(scale: str, votes: dict[str, Any], expected: list[float]) -> None:
    row = {"prompt": "p", "response_a": "a", "response_b": "b", "votes": votes, "scale": scale}
    labels = DIALECTS["ballots"].read(row).labels
    assert labels == tuple(vote_label(vote, by) for by, vote in zip(votes, expected, strict=True))


@pytest.mark.parametrize(
    ("scale", "votes", "field"),
    [
        ("1 a better", {"x": 1}, "scale"),
        ("-1 = B, 1 = A", {"x": 1, "y": -1}, "scale"),
        ("likert", {"x": -1}, "scale"),
        (3, {"x": -1}, "scale"),
        ("1 a, 1 b", {"x": 1}, "scale"),
        ("1 a better, 2 b better", {"x": 3}, "votes"),
        ("1 a better, 2 b better", {"x": -1}, "votes"),
        ("1 a better, 2 b better", {"x": 1.5}, "votes"),
    ],
)
def test_a_scale_that_does_not_decide_is_refused(scale: object, votes: dict[str, Any], field: str) -> None:
    row = {"prompt": "p", "response_a": "a", "response_b": "b", "votes": votes, "scale": scale}
    with pytest.raises(CodingError) as caught:
        DIALECTS["ballots"].read(row)
    assert caught.value.field == field


def test_a_tie_in_which_both_are_bad_stays_marked() -> None:
    group = DIALECTS["ppe-preference"].read(ROWS["ppe-preference"] | {"winner": "tie (bothbad)"})
    assert group.labels == (Tie(tie=(0, 1)),) and group.meta["winner"] == "tie (bothbad)"
    assert DIALECTS["ppe-preference"].write(group)["winner"] == "tie (bothbad)"


def test_rmb_rows_keep_their_category_as_a_subset_and_their_models() -> None:
    group = DIALECTS["rmb-bon"].read(ROWS["rmb-bon"])
    assert group.subset == "BoN_set/Helpfulness/Code/Debugging" and group.id == "1"
    assert group.meta == {"bon_best": {"llm_name": "m"}, "loser_list": [{"llm_name": "n"}, {"llm_name": "o"}]}
    assert DIALECTS["rmb-bon"].write(group) == ROWS["rmb-bon"]
    assert DIALECTS["rmb-pairwise"].write(DIALECTS["rmb-pairwise"].read(ROWS["rmb-pairwise"])) == ROWS["rmb-pairwise"]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({"choices": ["a", "b"], "labels": [1]}, "2 choices came with 1 labels"),
        ({"choices": ["a", "b"], "labels": [1, 1]}, "all the same"),
        ({"choices": ["a", "b"], "labels": [1, 2]}, "a label of 0 or 1"),
        ({"choices": ["a", "b"], "labels": [1, 0], "scores": []}, "scores came in it"),
        ([1], "an object with `choices` and `labels` was needed"),
    ],
)
def test_a_bad_hhh_row_is_one_sentence(targets: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        DIALECTS["hhh"].read({"input": "p", "targets": targets})
    assert said in str(caught.value)


def test_null_is_not_rated_and_never_zero() -> None:
    group = DIALECTS["native"].read(
        {"prompt": "p", "completions": ["a", "b", "c"], "labels": [{"ratings": [1, None, 0]}]}
    )
    assert list(group.comparisons()) == [Comparison(better=0, worse=2, margin=1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"completions": []}, "at least one was needed"),
        ({"completions": None}, "a list was needed"),
        ({"completions": ["a", 3]}, "a number came, text or a list of turns was needed"),
        ({"completions": [[{"role": "user"}]]}, "without content"),
        ({"completions": [[{"from": "user", "value": "x"}]]}, "an object with `role` and `content` was needed"),
        ({"prompt": 5}, "text or a list of turns was needed"),
        ({"labels": [{"better": 0}]}, "`worse` beside `better`"),
        ({"labels": [{"better": 0, "worse": 5}]}, "names completion 5"),
        ({"labels": [{"better": 0, "worse": 0}]}, "twice"),
        ({"labels": [{"better": 0, "worse": 1, "magin": 1}]}, "magin came"),
        ({"labels": [{"better": 0, "worse": 1, "tie": [0, 1]}]}, "one of better and worse"),
        ({"labels": [{"tie": [0, 1], "margin": 1}]}, "only `better` and `worse` can have"),
        ({"labels": [{"ratings": [1]}]}, "1 ratings came for 2 completions"),
        ({"labels": [{"ratings": [1, True]}]}, "a boolean came"),
        ({"labels": [{"ratings": [1, 10**400]}]}, "too large"),
        ({"labels": [{"order": "01"}]}, "a list as `order`"),
        ({"labels": [{"order": [0, 1], "weight": -1}]}, "weight -1"),
        ({"labels": [3]}, "as a label, an object was needed"),
        ({"id": [1]}, "text or a whole number was needed"),
        ({"meta": {"k": 1}, "k": 2}, "with different values"),
    ],
)
def test_a_bad_native_row_is_one_sentence(change: dict[str, Any], said: str) -> None:
    row = {"prompt": "p", "completions": ["a", "b"], "labels": []} | change
    with pytest.raises(DataError) as caught:
        DIALECTS["native"].read(row)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "native"])
def test_what_a_dialect_cannot_say_is_refused_by_name(name: str) -> None:
    three = Group(
        prompt="p", completions=pair("", "a", "b").completions * 2, labels=(Ranking(order=(2, 0, 1)),), id="q9"
    )
    with pytest.raises(DataError, match=r"group 'q9' cannot be written: .*write it as native rows"):
        DIALECTS[name].write(three)


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({"prompt": "p", "chosen": 7, "rejected": "b"}, "chosen", "a number came, text or a list of turns was needed"),
        ({"prompt": "p", "completions": "a"}, "completions", "a text ('a') came, a list was needed"),
        (
            {"instruction": "p", "completions": ["a"]},
            "completions",
            "a text came, an object with a response was needed",
        ),
        ({"prompt": "p"}, None, "native rows are the nearest, and completions is missing; name the columns with"),
        ({"completions": ["a"]}, None, "native rows are the nearest, and prompt is missing; name the columns with"),
        ({"ask": "p", "reply": "a"}, None, "hh, preference); name the columns with --chosen-key"),
    ],
)
def test_a_row_of_no_dialect_is_told_what_is_wrong_with_it(row: dict[str, Any], field: str | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        detect_dialect([row])
    assert caught.value.field == field and said in caught.value.reason


def test_an_unknown_format_lists_the_known_ones() -> None:
    assert find_dialect("trl").name == "preference"
    with pytest.raises(ConfigError, match=r"'nope' came, one of ultrafeedback, .*preference was needed"):
        find_dialect("nope")
