"""What holds for every Group, every row and every file: written is read back, and nothing but DataError comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plaudit.errors import DataError, PlauditError
from plaudit.formats import DIALECTS, Reader, read_groups, write_groups
from plaudit.group import Completion, Group, Label, Preference, Ranking, Ratings, Tie

QUICK = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])

SPECIAL = [
    "",
    " ",
    "\n\nHuman: a",
    "Assistant:",
    '"',
    "[1, 2]",
    '[{"role": "user"}]',
    "null",
    "\r",
    "\x00",
    "\u2028",
    "𝄞",
    "a,b\n",
]
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.sampled_from(SPECIAL))
plain_texts = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12)
finite = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))
weights = st.one_of(st.just(1.0), st.floats(0, 100))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), finite, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
turns = st.builds(
    lambda role, content, extra: {"role": role, "content": content, **extra},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    st.dictionaries(st.sampled_from(["name", "tool_calls"]), json_values, max_size=1),
)
simple_turns = st.builds(
    lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), texts
)


def contents(turn: st.SearchStrategy[dict[str, Any]], min_turns: int = 0) -> st.SearchStrategy[Any]:
    return st.one_of(texts, st.lists(turn, min_size=min_turns, max_size=3).map(tuple))


@st.composite
def labels(draw: st.DrawFn, num_completions: int) -> Label:
    by, weight = draw(st.none() | texts), draw(weights)
    kind = draw(st.sampled_from(["ratings", "better", "tie", "order"] if num_completions > 1 else ["ratings"]))
    if kind == "ratings":
        ratings = draw(st.lists(st.none() | finite, min_size=num_completions, max_size=num_completions))
        return Ratings(ratings=tuple(ratings), by=by, weight=weight)
    places = draw(st.permutations(range(num_completions)))
    if kind == "better":
        return Preference(better=places[0], worse=places[1], margin=draw(st.none() | finite), by=by, weight=weight)
    some = tuple(places[: draw(st.integers(2, num_completions))])
    return Tie(tie=some, by=by, weight=weight) if kind == "tie" else Ranking(order=some, by=by, weight=weight)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    answers = draw(st.lists(contents(turns), min_size=1, max_size=4))
    return Group(
        prompt=draw(contents(turns)),
        completions=tuple(Completion(content=answer) for answer in answers),
        labels=tuple(draw(st.lists(labels(len(answers)), max_size=3))),
        id=draw(st.none() | texts),
        subset=draw(st.none() | texts),
        source=draw(st.none() | texts),
        meta=draw(st.dictionaries(texts, json_values, max_size=3)),
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.jsonl.gz", "a.json.gz", "a.jsonl.zst"])
@QUICK
@given(wanted=st.lists(groups(), min_size=1, max_size=4))
def test_native_reads_back_what_was_written(tmp_path: Path, name: str, wanted: list[Group]) -> None:
    assert write_groups(wanted, tmp_path / name) == len(wanted)
    assert list(read_groups(tmp_path / name)) == wanted


@QUICK
@given(wanted=st.lists(groups(), min_size=1, max_size=3))
def test_csv_reads_back_what_was_written_or_refuses_it(tmp_path: Path, wanted: list[Group]) -> None:
    path = tmp_path / "a.csv"
    path.unlink(missing_ok=True)
    try:
        write_groups(wanted, path)
    except DataError as error:
        assert "CSV" in str(error) and not path.exists()
        return
    assert list(read_groups(path)) == wanted


@FEW
@given(wanted=groups())
def test_the_same_groups_give_the_same_bytes(tmp_path: Path, wanted: Group) -> None:
    for name in ("x.jsonl", "x.jsonl.gz", "x.json.zst", "x.parquet"):
        written = []
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_groups([wanted], tmp_path / folder / name)
            written.append((tmp_path / folder / name).read_bytes())
        assert written[0] == written[1]


extras = st.dictionaries(
    st.sampled_from(["model", "note", "unscored", "chosen_score", "extra column"]), json_values, max_size=2
)
names = {"id": st.none() | texts, "subset": st.none() | texts, "source": st.none() | texts, "meta": extras}
no_margin_one = finite.filter(lambda value: value > 0 and value != 1)


@st.composite
def spoken(draw: st.DrawFn, dialect: str) -> Group:
    """A Group that `dialect` can say and that reading gives back unchanged."""
    answers = draw(st.lists(contents(simple_turns, 1), min_size=2, max_size=5))
    many = ("native", "scored", "ultrafeedback", "ppe-correctness", "rewardbench2", "rmbench", "hhh", "rmb-bon")
    pair_only = dialect not in many
    if dialect == "rmbench":
        answers = draw(st.lists(contents(simple_turns, 1), min_size=6, max_size=6))
    if pair_only:
        answers = answers[:2]
    group = {"prompt": draw(contents(simple_turns)), **{name: draw(value) for name, value in names.items()}}
    by = draw(st.none() | texts)
    ratings = tuple(draw(st.lists(st.none() | finite, min_size=len(answers), max_size=len(answers))))
    verdict = draw(st.sampled_from([Preference(better=0, worse=1), Preference(better=1, worse=0), Tie(tie=(0, 1))]))
    split = 3 if dialect == "rmbench" else draw(st.integers(1, len(answers) - 1))
    said: list[Label]
    match dialect:
        case "preference":
            said = [Preference(better=0, worse=1, margin=draw(st.none() | finite), by=by)]
        case "hh":
            shared = draw(st.lists(plain_texts, max_size=2))
            group["prompt"] = tuple({"role": "user", "content": text} for text in ["start", *shared])
            answers = [
                ({"role": "assistant", "content": text},) for text in ("a" + draw(plain_texts), "b" + draw(plain_texts))
            ]
            said = [Preference(better=0, worse=1, margin=draw(st.none() | finite), by=by)]
        case "rewardbench":
            group["meta"] = {**group["meta"], "chosen_model": "m", "rejected_model": "n"}
            said = [Preference(better=0, worse=1, margin=draw(st.none() | finite))]
        case "votes" | "ballots":
            voters = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
            ways = [
                draw(
                    st.sampled_from(
                        [
                            Tie(tie=(0, 1), by=voter),
                            Preference(better=0, worse=1, by=voter),
                            Preference(better=1, worse=0, margin=2.5, by=voter),
                        ]
                    )
                )
                for voter in voters
            ]
            said = list(ways)
        case "hhh":
            good = draw(st.sets(st.integers(0, len(answers) - 1), min_size=1, max_size=len(answers) - 1))
            rest_of = [k for k in range(len(answers)) if k not in good]
            said = [Preference(better=a, worse=b) for a in sorted(good) for b in rest_of]
        case "rmb-bon":
            said = [Preference(better=0, worse=b) for b in range(1, len(answers))]
            models = [{"llm_name": str(i)} for i in range(1, len(answers))]
            if draw(st.booleans()):
                group["meta"] = {**group["meta"], "bon_best": {"llm_name": "m"}, "loser_list": models}
        case "rmb-pairwise":
            said = [Preference(better=0, worse=1)]
            group["meta"] = {**group["meta"], "reject": {"llm_name": "m"}} if draw(st.booleans()) else group["meta"]
        case "rewardbench2" | "rmbench":
            said = [Preference(better=a, worse=b) for a in range(split) for b in range(split, len(answers))]
        case "scored" | "ppe-correctness":
            said = [Ratings(ratings=ratings, by="scores")]
        case "ultrafeedback":
            said = [Ratings(ratings=ratings, by="overall_score")]
            rest = [{"model": str(i)} for i in range(len(answers))]
            group["meta"] = {**group["meta"], "completions": rest} if draw(st.booleans()) else group["meta"]
        case "llmbar":
            said = [verdict if isinstance(verdict, Preference) else Preference(better=1, worse=0)]
        case "ppe-preference":
            said = [verdict]
            if isinstance(verdict, Tie) and draw(st.booleans()):
                group["meta"] = {**group["meta"], "winner": "tie (bothbad)"}
        case _:
            said = [verdict]
    return Group(completions=tuple(Completion(content=answer) for answer in answers), labels=tuple(said), **group)


@pytest.mark.parametrize("dialect", list(DIALECTS))
@QUICK
@given(data=st.data())
def test_each_dialect_reads_back_what_it_can_say(tmp_path: Path, dialect: str, data: st.DataObject) -> None:
    group = data.draw(spoken(dialect))
    try:
        row = DIALECTS[dialect].write(group)
    except DataError as error:
        assert "cannot be written" in error.reason
        return
    assert DIALECTS[dialect].read(json.loads(json.dumps(row))) == group
    path = tmp_path / "a.jsonl"
    write_groups([group], path, format=dialect)
    assert list(read_groups(path, format=dialect)) == [group]
    assert DIALECTS[dialect].detect(row)


@pytest.mark.parametrize("dialect", list(DIALECTS))
@QUICK
@given(group=groups())
def test_a_dialect_writes_what_it_can_read_or_says_why_not(dialect: str, group: Group) -> None:
    try:
        row = DIALECTS[dialect].write(group)
    except DataError as error:
        assert error.reason
        return
    again = DIALECTS[dialect].read(row)
    assert sorted(map(repr, meaning(again))) == sorted(map(repr, meaning(group)))


def meaning(group: Group) -> list[Any]:
    """The claims of a Group over its conversations, whatever the order of its completions."""
    said = []
    for claim in group.comparisons():
        first, second = (turns_of(group, index) for index in (claim.better, claim.worse))
        both = sorted((repr(first), repr(second))) if claim.is_tie else [repr(first), repr(second)]
        said.append((both, claim.is_tie, None if claim.margin is None else float(claim.margin), claim.by, claim.weight))
    return said


def turns_of(group: Group, index: int) -> list[Any]:
    return [dict(turn) for turn in group.conversation(index)]


fields = st.sampled_from(
    [
        *sorted({field for dialect in DIALECTS.values() for field in dialect.needs}),
        "id",
        "subset",
        "source",
        "meta",
        "margin",
        "by",
        "annotators",
        "scale",
        "response_2",
        "chosen_model",
        "num_correct",
    ]
)
wild_turns = st.dictionaries(st.sampled_from(["role", "content", "name"]), json_values, max_size=3)
wild_values = st.one_of(
    json_values,
    texts,
    st.lists(wild_turns, max_size=3),
    st.lists(st.lists(wild_turns, max_size=2), max_size=3),
    st.just(10**400),
    st.lists(
        st.dictionaries(st.sampled_from(["better", "worse", "tie", "order", "ratings", "by", "weight"]), json_values)
    ),
    st.lists(st.dictionaries(st.sampled_from(["response", "overall_score", "annotations"]), json_values), max_size=3),
    st.dictionaries(texts, st.sampled_from(["a", "B", "equal", 1, 2, -1, None, []]), max_size=3),
    st.sampled_from(["A>B", "model_a", "tie (bothbad)", 1, 2]),
)
PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"a"',
    b":",
    b",",
    b"\n",
    b'{"prompt":',
    b"NaN",
    b"\xef\xbb\xbf",
    b"1e999",
    b'"\\ud800"',
]
PIECES += [b"\r\n", b'{"chosen":"a","rejected":"b"}', b"PAR1", b"ARROW1", b"\x1f\x8b\x08"]
wild_rows = st.dictionaries(fields, wild_values, max_size=8)


@pytest.mark.parametrize("dialect", [None, *DIALECTS])
@settings(QUICK, max_examples=80)
@given(row=wild_rows)
def test_any_row_is_a_group_or_one_sentence(tmp_path: Path, dialect: str | None, row: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + json.dumps(row) + "\n")
    try:
        found = list(Reader(path, format=dialect))
    except DataError as error:
        assert error.file == str(path) and (error.line == 2 or "no dialect" in error.reason)
        assert "\n" not in str(error)
        return
    assert [item.line for item in found] == [2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.parquet", "a.arrow", "a.jsonl.zst"])
@settings(QUICK, max_examples=60)
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    )
)  # fmt: skip
def test_any_bytes_are_rows_or_one_sentence(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        for item in Reader(path):
            assert item.file == str(path)
    except DataError as error:
        assert error.file == str(path)


@settings(QUICK, max_examples=60)
@given(
    group=groups(),
    cut=st.integers(0, 400),
    flip=st.integers(0, 400),
    name=st.sampled_from(["a.parquet", "a.json.gz", "a.csv", "a.jsonl.zst"]),
)
def test_a_damaged_file_is_one_sentence_or_still_reads(
    tmp_path: Path, group: Group, cut: int, flip: int, name: str
) -> None:
    path = tmp_path / name
    try:
        write_groups([group] * 3, path)
    except DataError:
        return
    data = bytearray(path.read_bytes())
    data[flip % len(data)] ^= 0x55
    path.write_bytes(bytes(data[: max(1, len(data) - cut % len(data))]))
    try:
        list(Reader(path))
    except PlauditError as error:
        assert isinstance(error, DataError) and error.file == str(path)
