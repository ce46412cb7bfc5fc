"""modelcard.py: the page that goes with a model."""

from __future__ import annotations

from dataclasses import replace

import yaml

from plaudit.modelcard import ModelFacts, render_page
from plaudit.specimen import SampleRow

TURNS = ({"role": "user", "content": 'Say "hi".'}, {"role": "assistant", "content": "hi\n"})
FACTS = ModelFacts(
    name="my-model",
    architecture="LlamaForSequenceClassification",
    num_weights=1_234_567,
    dtype="bfloat16",
    example=SampleRow(ids=(1, 2), messages=TURNS),
    score=0.12345,
    card={"plaudit": "9.9"},
)
REPORT = {
    "eval": {"accuracy": 0.71234, "accuracy_ci": [0.66, 0.76], "n": 1500, "curve": [1, 2, 3]},
    "steps": 120,
    "loss": "bradley_terry",
    "best": True,
    "nested": {"a": 1},
    "model": "/home/someone/run/model",
    "long": "x" * 200,
}


def front_matter(page: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(page.split("---")[1])
    return found


def test_the_hub_reads_its_head() -> None:
    assert front_matter(render_page(FACTS)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "plaudit"],
    }
    adapter = render_page(replace(FACTS, is_adapter=True, base="owner/base"))
    assert front_matter(adapter)["base_model"] == "owner/base" and front_matter(adapter)["library_name"] == "peft"
    for local in ("/models/base", "./a/b", "../base", "base", "~/a"):
        assert "base_model" not in front_matter(render_page(replace(FACTS, base=local))), local


def test_numbers_are_those_of_the_report() -> None:
    page = render_page(replace(FACTS, report=REPORT))
    for line in (
        "| accuracy | 0.7123 |", "| accuracy ci | 0.66 to 0.76 |", "| n | 1,500 |", "| steps | 120 |",
        "| loss | bradley_terry |", "| best | yes |",
    ):  # fmt: skip
        assert line in page
    assert "curve" not in page and "nested" not in page and "/home" not in page and "xxx" not in page
    assert page.index("## Evaluation") < page.index("## Run") < page.index("## Scores")


def test_several_evaluation_sets_keep_their_names() -> None:
    page = render_page(replace(FACTS, report={"eval": {"hh": {"accuracy": 0.5}, "other|one": {"accuracy": 0.75}}}))
    assert "| hh: accuracy | 0.5 |" in page and "| other\\|one: accuracy | 0.75 |" in page


def test_a_model_without_a_run_has_no_numbers() -> None:
    page = render_page(FACTS)
    assert "## Evaluation" not in page and "## Run" not in page and "1,234,567 weights in bfloat16" in page


def test_the_quick_start_says_what_it_prints() -> None:
    page = render_page(FACTS)
    assert "prints 0.1235, or nearly" in page or "prints 0.1234, or nearly" in page
    code = page.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")
    assert (
        '{"role": "user", "content": "Say \\"hi\\"."}' in code and '{"role": "assistant", "content": "hi\\n"}' in code
    )


def test_an_adapter_is_loaded_in_the_precision_of_its_base_and_with_its_pad() -> None:
    page = render_page(replace(FACTS, is_adapter=True))
    assert "num_labels=1, dtype=torch.bfloat16" in page and "model.config.pad_token_id = tokenizer" in page
    assert "plaudit export my-model --out merged --merge" in page and "vLLM" not in page


def test_a_text_without_a_template_gets_its_eos() -> None:
    page = render_page(replace(FACTS, example=SampleRow(ids=(1,), text="a b")))
    assert "tokenizer(text + tokenizer.eos_token" in page and "there is no chat template" in page


def test_a_head_of_another_name_has_no_quick_start() -> None:
    page = render_page(replace(FACTS, head="value_head"))
    assert "Quick start" not in page and "value_head_prefix" in page and "vLLM" not in page


def test_normalisation_is_told_with_where_it_comes_from() -> None:
    card = {"normalisation": {"mean": 0.5, "std": 1.25, "count": 2000, "source": "hh, test split"}}
    page = render_page(replace(FACTS, card=card))
    assert "Mean 0.5 and deviation 1.25, measured on 2,000 answers (hh, test split), are stored and not applied" in page


def test_an_encoders_score_is_not_at_the_last_token() -> None:
    page = render_page(replace(FACTS, card={"score_position": "mean"}))
    assert "the one logit of the encoder (mean)" in page and "last token" not in page


def test_the_proof_is_told() -> None:
    page = render_page(replace(FACTS, proof="proven by plain transformers"))
    assert page.endswith("## Proof\n\nThis folder was proven by plain transformers.\n")
