"""table.py, settings.py and the pages: one loss a file, a closed list, examples that run."""

from __future__ import annotations

import doctest
import os
import pkgutil
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

import plaudit.losses
from plaudit import ConfigError
from plaudit.config.schema import LossConfig
from plaudit.losses import LOSSES, LossName, LossSettings, loss_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "losses.md"
BEGIN, END = "<!-- the table of losses -->\n", "<!-- end of the table -->\n"
FILES = [module.name for module in pkgutil.iter_modules(plaudit.losses.__path__)]


def test_every_name_is_a_loss_and_a_file() -> None:
    assert list(LOSSES) == list(LossName)
    for name, loss in LOSSES.items():
        module = import_module(f"plaudit.losses.{name}")
        assert module.LOSS is loss
        assert loss.compute is getattr(module, name)


@pytest.mark.parametrize("name", list(LossName))
def test_a_loss_says_what_it_needs_when_to_take_another_and_shows_itself(name: LossName) -> None:
    told = LOSSES[name].compute.__doc__ or ""
    for words in ("Needs: ", "For: ", "Prefer ", ">>> "):
        assert words in told, words
    prefer = LOSSES[name].prefer
    assert any(f"`{other}`" in prefer for other in LossName if other is not name)


@pytest.mark.parametrize("name", FILES)
def test_examples_run(name: str) -> None:
    found = doctest.testmod(import_module(f"plaudit.losses.{name}"))
    assert found.failed == 0
    assert found.attempted > 0 or name not in list(LossName)


def test_an_unknown_loss_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"loss\.name: 'hinges' came \(LossSettings\), .*did you mean hinge\?"):
        LossSettings(name="hinges")  # type: ignore[arg-type]


def test_settings_are_those_of_the_configuration() -> None:
    own = {f.name for f in fields(LossSettings)}
    assert set(LossConfig.model_fields) <= own
    assert LossSettings.from_config(LossConfig()) == LossSettings()
    told = LossConfig(name=LossName.HINGE, label_smoothing=0.1, center=0.5, annotators={"ann": 2.0}, ties="drop")
    taken = LossSettings.from_config(told)
    assert {name: getattr(taken, name) for name in LossConfig.model_fields} == dict(told)
    assert LossSettings(name="hinge").name is LossName.HINGE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"label_smoothing": 0.5}, "loss.label_smoothing: 0.5 came"),
        ({"annotators": {"ann": -1.0}}, r"loss.annotators.ann: -1.0 came"),
        ({"attributes": ("clarity",)}, "set loss.name=regression"),
        ({"name": LossName.REGRESSION, "label_smoothing": 0.1}, "no two sides to smooth over"),
    ],
)
def test_the_rules_of_the_configuration_hold(told: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LossSettings(**told)  # type: ignore[arg-type]


def test_annotators_are_weighed_by_name_or_by_what_stands_before_the_attribute() -> None:
    chosen = LossSettings(annotators={"ann1": 0.5, "ann2/clarity": 3.0, "ann2": 0.0})
    names = ("ann1", "ann1/clarity", "ann2/clarity", "ann2/truth", "ann3", None)
    assert [chosen.weight_of(by) for by in names] == [0.5, 0.5, 3.0, 0.0, 1.0, 1.0]


def test_a_card_holds_what_differs() -> None:
    assert LossSettings().card() == {"name": "bradley_terry"}
    chosen = LossSettings(name=LossName.REGRESSION, attributes=("a", "b"), means=(1.0, 2.0), spreads=(1.0, 1.0))
    card = chosen.card()
    assert card == {"name": "regression", "attributes": ["a", "b"], "means": [1.0, 2.0], "spreads": [1.0, 1.0]}
    assert type(card["name"]) is str
    assert LossSettings(**card | {"attributes": ("a", "b")}).score_weights() == (0.5, 0.5)


def test_the_table_has_a_line_a_loss() -> None:
    lines = loss_table().splitlines()
    assert len(lines) == len(LossName) + 2
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}


def test_the_page_shows_the_table_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    shown, _, tail = rest.partition(END)
    if os.environ.get("PLAUDIT_WRITE_GOLDEN"):
        shown = loss_table()
        PAGE.write_text(f"{head}{BEGIN}{shown}{END}{tail}", encoding="utf-8")
    assert shown == loss_table(), "PLAUDIT_WRITE_GOLDEN=1 renews it"
