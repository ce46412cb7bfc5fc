"""No secret is stored or printed: twenty spellings one by one, and a whole round of commands on an address with one."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forks import Parent
from plaudit.config import read_config
from plaudit.corpus.settings import Part, name_parts
from plaudit.errors import ConfigError, DataError
from plaudit.intake import Intake
from plaudit.redaction import (
    hide_command,
    hide_report,
    hide_text,
    hide_url,
    hide_values,
    holds_hidden,
    identify_url,
    is_secret_key,
)
from plaudit.runs.environment import read_session
from schooling import QUICK, graded_rows, write_rows
from tiny import save_model
from told import Told, hear

SECRET = "s3cr3tWordThatNobodyMaySee"

SPELLINGS = [
    "https://host/rows.jsonl?access_token=SECRET",
    "https://me:SECRET@host/rows.jsonl",
    "https://SECRET@host/rows.jsonl",
    "s3://key:SEC/SECRET@bucket/rows.jsonl",
    "https://account.blob.core.windows.net/c/rows.jsonl?sv=2024&sig=SECRET",
    "https://bucket.s3.amazonaws.com/rows.jsonl?X-Amz-Credential=A&X-Amz-Signature=SECRET",
    "https://host/rows.jsonl?SECRET",
    "https://host/callback#access_token=SECRET",
    "hf.hub_token=SECRET",
    "hf={hub_token: SECRET}",
    'hf={"hub_token": "SECRET", "seed": 1}',
    "data=[{path: 'https://host/x.jsonl?token=SECRET', weight: 2}]",
    "--api-key=SECRET",
    "api_key=SECRET",
    "apiKey: SECRET",
    "password=SECRET",
    "client_secret: 'SECRET'",
    "Authorization: Bearer SECRET",
    "Authorization: Basic SECRET==",
    "the server answered 401 to Bearer SECRET",
    "Cookie: session=SECRET; path=/",
    "X-Amz-Security-Token=SECRET",
    "AWS_SESSION_TOKEN=SECRET",
    "HF_TOKEN=SECRET",
    "credentials='SECRET and more of SECRET'",
    "a=token=SECRET",
    "sig=SECRET",
]
"""In each, SECRET stands for a secret."""

TOKENS = [
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "sk-proj-a1B2c3D4e5F6g7H8i9J0",
    "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6",
    "github_pat_11ABCDEFG0a1B2c3D4e5F6",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123456789012-abcdefghij",
    "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
]
"""What looks like a token wherever it stands."""

PLAIN = [
    "render.eos_token=</s>",
    "pad_token: <pad>",
    "max_tokens=512",
    "num_tokens=7",
    "unique_tokens_per_second=8120.5",
    "tokenizer=smollm2",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "prompt_key=question",
    "--prompt-key",
    "data/**/part-?.jsonl",
    "s3://bucket/part-?.jsonl",
    "hub:owner/name:config@train",
    "http://127.0.0.1:8000/rows.jsonl",
    "https://host/rows.jsonl#first",
    "sk-learn-based-classifier",
    "train.learning_rate=1e-5",
    "author: Jane",
    "12:30",
    "C:\\data\\rows.jsonl",
    "lake/key=5/day=3/rows.jsonl",
]
"""What stays as it is."""


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_secrets_are_hidden_in_every_spelling(spelling: str) -> None:
    text = spelling.replace("SECRET", SECRET)
    for hidden in (hide_text(text), hide_text(f"{text} came"), hide_text(text, is_setting=True), *hide_command([text])):
        assert SECRET not in hidden
        assert "***" in hidden
        assert hide_text(hidden, is_setting=True) == hidden
    assert SECRET not in json.dumps(hide_values({"deep": [{"in": (text,)}]}))
    assert SECRET not in json.dumps(hide_report({"command": [text], "notes": [f"{text}: 3 rows"]}))


@pytest.mark.parametrize("token", TOKENS)
def test_words_that_look_like_tokens_are_hidden(token: str) -> None:
    assert hide_text(f"it said {token}, and stopped") == "it said ***, and stopped"


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hide_text(text) == text
    assert hide_text(text, is_setting=True) == text
    assert hide_command([text, "next"]) == [text, "next"]


@pytest.mark.parametrize(
    "sentence",
    [
        "the tokenizer has no EOS token: none is appended",
        "the key: it is there",
        "it has 7 tokens: too many",
        "auth: on",
    ],
)
def test_a_colon_in_a_sentence_is_no_setting(sentence: str) -> None:
    assert hide_text(sentence) == sentence


def test_keys_that_hold_secrets_at_any_depth() -> None:
    headers = {"headers": {"Authorization": SECRET}}
    settings = {
        "hf": {"hub_token": SECRET, "args": [headers, {"storage": {"secret": {"a": 1}}}]},
        "api_key": 12345, "password": "", "token": None, "use_auth": False, "eos_token": "</s>", "max_tokens": 5,
        "per_token": {"accuracy": 0.5}, "pad_token_id": 3, "tokenizer": {"name": "x"},
    }  # fmt: skip
    assert hide_values(settings) == {
        "hf": {"hub_token": "***", "args": [{"headers": {"Authorization": "***"}}, {"storage": {"secret": "***"}}]},
        "api_key": "***", "password": "", "token": None, "use_auth": False, "eos_token": "</s>", "max_tokens": 5,
        "per_token": {"accuracy": 0.5}, "pad_token_id": 3, "tokenizer": {"name": "x"},
    }  # fmt: skip
    assert holds_hidden(hide_values(settings)) and not holds_hidden({"data": ["data/**/*.jsonl"]})


@pytest.mark.parametrize(
    "name", ["hubToken", "X-Api-Key", "OPENAI_API_KEY", "section.db_password", "sessionCookie", "token"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_key(name)


def test_a_flag_takes_the_next_word_along() -> None:
    assert hide_command(["--api-key", "abc", "x", "--token", "--json"]) == [
        "--api-key",
        "***",
        "x",
        "--token",
        "--json",
    ]


def test_texts_of_data_stay_as_they_are_in_a_report() -> None:
    report = {"mistakes": [{"better": "see https://a.example/?q=1"}], "data": [{"path": "https://a.example/?q=1"}]}
    assert hide_report(report) == {"mistakes": report["mistakes"], "data": [{"path": "https://a.example/?***"}]}


def test_a_digest_stays_under_a_file_that_is_called_like_a_secret() -> None:
    data = {"my_secret": "sha256:" + "0" * 64}
    assert hide_values(data) == hide_report(data) == data


def test_sources_are_told_apart_without_their_secrets() -> None:
    first, second = identify_url("http://h/x.jsonl?token=a"), identify_url("http://h/x.jsonl?token=b")
    assert first != second and first.startswith("http://h/x.jsonl?***:") and identify_url("http://h/x") == "http://h/x"
    assert name_parts([Part(path=f"http://u:{SECRET}@h/rows.jsonl?token={SECRET}#{SECRET}")]) == ["rows"]


def test_an_error_names_its_source_without_the_secret(tmp_path: Path) -> None:
    assert SECRET not in str(DataError("it is empty", file=f"http://h/x?token={SECRET}"))
    with pytest.raises(DataError) as refused:
        Intake([f"http://127.0.0.1:9/rows.jsonl?token={SECRET}"], str(tmp_path / "out.jsonl"))
    assert SECRET not in str(refused.value) and "?***" in str(refused.value)
    with pytest.raises(ConfigError) as wrong:
        read_config(None, [f"hf.hub_token={SECRET}", f"train={SECRET}", "model=m", "data=d", "out=o"])
    assert "train" in str(wrong.value)


def test_a_session_keeps_no_secret() -> None:
    command = ["plaudit", "train", "hf={hub_token: x1}", "https://a.example/x?t=x1", "--token", "x1"]
    assert "x1" not in json.dumps(read_session(command)["command"])


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    folder = tmp_path_factory.mktemp("commands")
    with contextlib.chdir(folder):
        made = Parent(folder, imports="plaudit.train, peft, transformers.trainer, accelerate, plaudit.evaluate")
    yield made
    made.close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    write_rows(tmp_path / "web" / "pairs.jsonl", graded_rows(80))
    write_rows(tmp_path / "web" / "held.jsonl", graded_rows(30, seed=4))
    (tmp_path / "web" / "broken.jsonl").write_text('{"prompt": "a", "chosen": 1}\n')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    serve = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def leaks(folder: Path) -> list[str]:
    """Files below a folder that hold the secret, in their bytes or in their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET in path.name or SECRET.encode() in path.read_bytes()]


def test_nothing_that_a_round_of_commands_leaves_holds_a_secret(trainers: Parent, web: str, tmp_path: Path) -> None:
    """Train from an address with a token in it, resume, export, evaluate, probe, score: no file and no line has it."""
    out = tmp_path / "out"
    out.mkdir()
    model, run = save_model(tmp_path / "rm"), out / "run"

    def ask(*words: object, **environment: str) -> Told:
        told = hear(trainers.start(*map(str, words), env=environment))
        assert SECRET not in told.out + told.err, told
        assert leaks(out) == []
        return told

    pairs, held = f"{web}/pairs.jsonl?access_token={SECRET}", f"{web}/held.jsonl?X-Amz-Signature={SECRET}"
    begin = (
        "train", model, pairs, "--out", run, "--eval", held, *QUICK, "train.max_steps=3", "train.save_every=1",
        f"hf.run_name=https://me:{SECRET}@tracker/x",
    )  # fmt: skip
    # A key of the hub is refused, and the refusal does not repeat it.
    for told in (ask(*begin, f"hf.hub_token={SECRET}"), ask(*begin, f"hf={{hub_token: {SECRET}}}")):
        assert told.code == 2
    plan = ask(*begin, "--dry-run")
    assert plan.code == 0, plan.err
    assert "?***" in plan.out
    assert ask(*begin, "--dry-run", "--json").json["settings"]["hf.run_name"] == "https://***@tracker/x"
    trained = ask(*begin, "--json")
    assert trained.code == 0, trained.err
    assert "?***" in (run / "config.yaml").read_text() and "https://***@tracker/x" in (run / "config.yaml").read_text()
    assert f"{web}/pairs.jsonl?***" in json.loads((run / "environment.json").read_text())["data"]

    # Killed before the end: the same command goes on, though the run's file does not hold the secret any more.
    (run / "report.json").unlink()
    kept = (run / "config.yaml").read_text()
    resumed = ask(*begin, "--resume")
    assert resumed.code == 0, resumed.err
    assert "going on from" in resumed.err
    assert (run / "config.yaml").read_text() == kept
    (run / "report.json").unlink()
    without = ask("train", "--out", run, "--resume")
    assert without.code == 2
    assert "***" in without.err and "give data again" in without.err

    assert ask("export", run, "--out", out / "model").code == 0
    tested = ask("eval", run / "model", held, "--out", out / "eval", "--against", pairs, "--json")
    assert tested.code == 0, tested.err
    assert tested.json["data"][0]["path"] == f"{web}/held.jsonl?***"
    assert ask("eval", run / "model", held, "--out", out / "eval").code == 0
    assert ask("probe", run / "model", held, "--out", out / "probe", "--limit", "4").code == 0
    assert ask("score", run / "model", held, "-o", out / "scored.jsonl").code == 0
    assert ask("bon", f"{web}/held.jsonl?t={SECRET}", "--out", out / "bon").code == 2
    broken = ask("score", run / "model", f"{web}/broken.jsonl?t={SECRET}", "-o", out / "b.jsonl", "--debug")
    assert broken.code == 2 and "broken.jsonl?***" in broken.err
    assert ask("score", run / "model", f"{web}/gone.jsonl?t={SECRET}", "-o", out / "b.jsonl", "--json").code == 2
    assert ask("score", run / "model", held, "-o", out / "b.jsonl", f"--api-key={SECRET}").code == 2
    examined = ask("doctor", "--json", PLAUDIT_TOKEN=SECRET, HF_ENDPOINT=f"https://me:{SECRET}@mirror.example")
    assert examined.json["environment"]["PLAUDIT_TOKEN"] == "***"
    assert hide_url(examined.json["environment"]["HF_ENDPOINT"]) == "https://***@mirror.example"
