"""Messages on a misspelt name."""

import pytest

from ftlab.wording import MOST, did_you_mean

MANY = [f"Other{n}" for n in range(MOST)] + ["LoRA", "DoRA", "AdaLoRA"]


@pytest.mark.parametrize(("word", "choices", "said"), [
    ("Lora", ["LoRA", "IA3"], "did you mean 'LoRA'? (one of: LoRA, IA3)"),
    ("zzz", ["LoRA", "IA3"], "one of: LoRA, IA3"),
    ("Lora", MANY, "did you mean 'LoRA' or 'DoRA' or 'AdaLoRA'? (ftlab list x shows all 18)"),
    ("zzz", MANY, "ftlab list x shows all 18"),
    ("zzz", [], "it takes none"),
])
def test_did_you_mean__names_all_of_few_and_the_closest_of_many(
    word: str, choices: list[str], said: str
) -> None:
    assert did_you_mean(word, choices, "ftlab list x") == said
