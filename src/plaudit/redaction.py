"""Secrets taken out of whatever is stored or printed: sources, settings, commands, environments, messages.

Imports nothing of plaudit. A secret is the query, the fragment and the user part of a URL; the value under a key that
names a secret (`hub_token`, `api_key`, `Authorization`), at any depth; and a word that looks like a token of a known
service. It is shown as `***`. Invariants: hiding twice is the same as hiding once; what was hidden cannot be mistaken
for a value (`holds_hidden`); and every scan is linear, since messages may quote long texts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""The words of a name, whether it is written `hub_token`, `hubToken`, `X-Hub-Token` or `HUB_TOKEN`."""

_ALWAYS = {
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials",
    "authorization", "auth", "bearer", "cookie", "cookies", "signature", "sig", "apikey", "accesskey", "secretkey",
    "authtoken", "accesstoken", "jwt",
}  # fmt: skip
# A token is one of text as often as one of access, and a key is often a column or an entry.
_TOKEN_OF_TEXT = {
    "pad", "eos", "bos", "unk", "sep", "cls", "mask", "image", "audio", "video", "special", "per", "by", "last",
    "first", "final", "next", "each", "of", "closing", "end", "start", "stop", "new", "prompt", "chosen",
    "rejected", "score",
}  # fmt: skip
_KEY_OF_DATA = {
    "prompt", "chosen", "rejected", "sort", "primary", "foreign", "group", "cache", "index", "column", "label", "gold",
    "answer", "id", "by", "dataset", "public",
}  # fmt: skip
# What the services that hand out access call their tokens. A word begins where no letter, digit, _ or - stands before.
_TOKENS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:hf_[A-Za-z0-9]{20,}+|sk-(?=[A-Za-z_-]*+\d)[A-Za-z0-9_-]{16,}+|gh[pousr]_[A-Za-z0-9]{16,}+"
    r"|github_pat_[A-Za-z0-9_]{16,}+|glpat-[A-Za-z0-9_-]{16,}+|(?:AKIA|ASIA)[A-Z0-9]{12,}+|xox[abeprs]-[A-Za-z0-9-]{10,}+"
    r"|AIza[A-Za-z0-9_-]{30,}+|npm_[A-Za-z0-9]{30,}+|eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]++)?)"
)
_BEARER = re.compile(r"(?i:(?<![a-z])(bearer))(\s++)(?!\*\*\*)[A-Za-z0-9._~+/=-]{6,}+")
_URL = re.compile(r"""(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]*+://)([^\s"'<>]++)""")
_HEADER = re.compile(
    r"""(?i:(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie))(['"]?\s*+[:=]\s*+['"]?)([^\r\n'"]++)"""
)
_KEY = re.compile(r"""(?<![\w.-])([\w.-]++)(['"]?\s*+[=:]\s*+)""")
_VALUE = re.compile(r"""("[^"]*+"?|'[^']*+'?|[^\s,;&'"{}\[\]()]++)""")
_STRONG = re.compile(r"[_-]|['\"]|passw|secret|apikey", re.IGNORECASE)


def is_secret_key(name: str) -> bool:
    """Whether a key, a flag or a variable of this name holds a secret; of a dotted name, its last part counts.

    Examples:
        >>> [name for name in ("hub_token", "HF_TOKEN", "pad_token", "max_tokens", "prompt_key") if is_secret_key(name)]
        ['hub_token', 'HF_TOKEN']
    """
    own = name.replace("/", ".").rpartition(".")[2]
    words = [word.lower() for word in _WORDS.findall(own)]
    if not words:
        return False
    *before, last = words
    lead = before[-1] if before else ""
    if last == "token":
        return lead not in _TOKEN_OF_TEXT
    if last == "key":
        # Alone, it is an entry: `key=5` is part of many a path.
        return bool(lead) and lead not in _KEY_OF_DATA
    if last == "keys":
        return lead in ("api", "access", "secret", "private")
    if words[-2:] == ["connection", "string"]:
        return True
    return last in _ALWAYS or bool({"password", "secret", "credential", "credentials"} & set(before))


def hide_url(url: str) -> str:
    """A URL without its user part, its query and its fragment. In what is no web address, a `?` may be a wildcard.

    Examples:
        >>> hide_url("https://me:pw@host/rows.jsonl?access_token=abc")
        'https://***@host/rows.jsonl?***'
    """
    scheme, is_url, rest = url.partition("://")
    if not is_url:
        return url
    at_fragment = rest.find("#")
    if at_fragment >= 0 and "=" in rest[at_fragment:]:
        rest = rest[: at_fragment + 1] + HIDDEN
    path, mark, query = rest.partition("?")
    if mark and query and (scheme.lower() in ("http", "https") or "=" in query):
        rest = f"{path}?{HIDDEN}"
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, colon, port = host.rpartition(":")
    # A password may hold a slash: then what follows the colon is no port, and the user part ends further on.
    is_cut = colon and not port.isdigit() and not host.startswith("[") and "@" not in host
    end = rest.rfind("@") if is_cut else host.rfind("@")
    if end >= 0:
        rest = f"{HIDDEN}{rest[end:]}"
    return f"{scheme}://{rest}"


def hide_text(text: str, *, is_setting: bool = False) -> str:
    """A sentence or a value without the secrets in it.

    In a setting or a word of a command, `token: abc` is a key and its value; in a sentence it may be anything.
    """
    text = _URL.sub(_hide_found_url, text)
    text = _HEADER.sub(lambda m: m[1] + m[2] + HIDDEN, text)
    text = _BEARER.sub(lambda m: m[1] + m[2] + HIDDEN, text)
    text = _TOKENS.sub(HIDDEN, text)
    return _hide_pairs(text, is_setting)


def _hide_found_url(found: re.Match[str]) -> str:
    url = found[2].rstrip(").,;:]}")
    return hide_url(found[1] + url) + found[2][len(url) :]


def _hide_pairs(text: str, is_setting: bool) -> str:
    """`key=value` and `key: value` with the values of secret keys hidden. A value may itself be such a pair."""
    pieces, start, at = [], 0, 0
    while key := _KEY.search(text, at):
        at = key.end()
        name, between = key.groups()
        is_pair = is_setting or "=" in between or between[0] in "'\"" or _STRONG.search(name) is not None
        value = _VALUE.match(text, at) if is_pair and is_secret_key(name) else None
        if value is None or value[0].startswith("//"):
            continue
        quote = value[0][0] if value[0][0] in "'\"" else ""
        pieces += [text[start:at], f"{quote}{HIDDEN}{quote}"]
        start = at = value.end()
    return "".join([*pieces, text[start:]])


_DIGEST = re.compile(r"(?:sha256|groups|ends):[0-9a-f]{64}")
"""Beside the name of a file, which may be called anything."""


def _is_secret(key: str, value: Any) -> bool:
    is_empty = value is None or (isinstance(value, str | tuple | list | dict) and not value)
    if is_empty or isinstance(value, bool) or not is_secret_key(key):
        return False
    return not (isinstance(value, str) and _DIGEST.fullmatch(value))


def hide_values(value: Any, key: str = "") -> Any:
    """Settings, a record or a table, nested at will, without the secrets in them; `key` is the name it stands under."""
    if _is_secret(key, value):
        return HIDDEN
    if isinstance(value, str):
        return hide_text(value, is_setting=True)
    if isinstance(value, Mapping):
        return {_hide_name(name): hide_values(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [hide_values(item) for item in value]
    return value


def _hide_name(name: Any) -> Any:
    """A key of a table; sources may stand there."""
    return hide_text(name) if isinstance(name, str) and "://" in name else name


TEXTS = frozenset({"mistakes", "disagreements", "examples", "prompt", "better", "worse", "before", "after", "words"})
"""Keys under which reports quote the data: texts of the data stay as they are."""


def hide_report(report: Any) -> Any:
    """A report without the secrets in it; what it quotes of the data is left alone."""
    if isinstance(report, Mapping):
        return {
            _hide_name(name): item
            if name in TEXTS
            else HIDDEN
            if _is_secret(str(name), item) and isinstance(item, str)
            else hide_report(item)
            for name, item in report.items()
        }
    if isinstance(report, list | tuple):
        return [hide_report(item) for item in report]
    return hide_text(report) if isinstance(report, str) else report


def hide_command(words: Sequence[str]) -> list[str]:
    """The words of a command line: values of flags and settings that hold secrets are hidden."""
    hidden, is_value = [], False
    for word in words:
        name, equals, value = word.partition("=")
        is_secret = "://" not in name and is_secret_key(name.lstrip("-"))
        if is_value and not word.startswith("-"):
            hidden.append(HIDDEN)
        elif equals and value and is_secret:
            hidden.append(f"{name}={HIDDEN}")
        else:
            hidden.append(hide_text(word, is_setting=True))
        is_value = is_secret and word.startswith("--") and not equals
    return hidden


def holds_hidden(value: Any) -> bool:
    """Whether something was hidden in a value: it cannot be used, and has to be given again."""
    if isinstance(value, str):
        return HIDDEN in value
    if isinstance(value, Mapping):
        return any(holds_hidden(item) for item in value.values())
    return isinstance(value, list | tuple) and any(holds_hidden(item) for item in value)


def identify_url(url: str) -> str:
    """What tells a URL from others, without giving its secrets away: its public part, and a hash of the whole."""
    shown = hide_url(url)
    return url if shown == url else f"{shown}:{hashlib.sha256(url.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
