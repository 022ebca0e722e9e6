import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from ftlab.errors import InputError
from ftlab.tracking.mlflow_values import (
    LONGEST_PARAM,
    flatten,
    is_secret,
    name_of,
    numbers,
    redact,
    tag_values,
)

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
trees = st.recursive(
    leaves, lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


@settings(deadline=None)  # shared machines
@given(st.dictionaries(st.text("abc", min_size=1), trees, max_size=4))
def test_flatten__every_leaf_has_its_dotted_name(tree):
    def count(value):
        return sum(map(count, value.values())) if isinstance(value, dict) and value else 1

    flat = flatten(tree)
    assert len(flat) == (count(tree) if tree else 0)
    for name, text in flat.items():
        value = tree
        for part in name.split("."):
            value = value[part]
        assert text == (value if isinstance(value, str) else json.dumps(value))


def test_flatten__rates_sort_as_texts_and_are_read_as_the_same_numbers():
    rates = [1e-12, 5e-5, 1e-4, 0.0003, 0.001, 0.01, 0.5]
    texts = [flatten({"lr": rate})["lr"] for rate in rates]
    assert texts == sorted(texts)
    assert texts[1] == "0.00005"
    for number in [*rates, -2.5e-7, 1e300, 1e-300, 0.1 + 0.2, 1e16, 0.0]:
        assert float(flatten({"a": number})["a"]) == number
    assert flatten({"a": 8})["a"] == "8"


def test_flatten__our_classes_have_their_own_name():
    flat = flatten({"a": "ftlab.techniques.lora.LoRA", "b": "company.lora.LoRA", "c": "ftlab.x"})
    assert flat == {"a": "LoRA", "b": "company.lora.LoRA", "c": "ftlab.x"}


def test_numbers__of_a_technique_and_the_one_it_wraps():
    config = {"class_path": "ftlab.techniques.discriminative_lr.DiscriminativeLR", "init_args": {
        "lr": 5e-5, "decay": 0.9, "merge": True, "last": None, "name": "1 of 2",
        "technique": {"class_path": "LoRA", "init_args": {"rank": 16}}}}
    params = flatten({"technique": config, "trainer": {"max_epochs": 3}})
    assert numbers(params) == {"param/lr": 5e-5, "param/decay": 0.9, "param/technique.rank": 16.0}


def test_flatten__long_values_are_cut_with_an_ellipsis():
    text = flatten({"a": "x" * 7000})["a"]
    assert len(text) == LONGEST_PARAM
    assert text.endswith("…")


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "hf_token",
        "accessToken",
        "a.token",
        "db_password",
        "secret",
        "a.api_key",
        "apiKey",
        "secrets.x",
    ],
)
def test_is_secret__names_of_secrets(name):
    assert is_secret(name)
    assert flatten({name: "hunter2"})[name] == "[redacted]"
    assert tag_values({name: "hunter2"})[name] == "[redacted]"


@pytest.mark.parametrize(
    "name", ["num_virtual_tokens", "tokenizer", "token_dropout", "max_tokens", "rank", "keys"]
)
def test_is_secret__hyperparameters_are_not(name):
    assert not is_secret(name)


@settings(deadline=None)  # shared machines
@given(
    st.from_regex(r"[a-z0-9:@]{1,12}", fullmatch=True),
    st.sampled_from(["https", "postgresql+psycopg2", "s3"]),
)
def test_redact__no_user_or_password_survives(secret, scheme):
    text = redact(f"see {scheme}://me-{secret}@host/path now")
    assert text == f"see {scheme}://host/path now"


def test_redact__keys_in_queries_and_lists():
    assert "s3cr3t" not in redact("https://h/x?a=1&access_token=s3cr3t&b=2")
    flat = flatten({"sources": [{"uri": "https://u:s3cr3t@h/x", "api_key": "s3cr3t"}]})
    assert "s3cr3t" not in flat["sources"]
    assert "https://h/x" in flat["sources"]


@settings(deadline=None)  # shared machines
@given(st.text(max_size=300) | st.text("/. é\u0301न\u093f", max_size=6))
def test_name_of__mlflow_takes_it(text):
    name = name_of(text)
    for kind in ("metrics", "params", "tags"):
        assert _validate_metric_name(name, f"{kind}[0].name") is None
    assert name_of(name) == name, "what a report asks for by the name as stored is that name"
    assert name_of(unicodedata.normalize("NFD", text)) == name


@pytest.mark.parametrize(("text", "name"), [
    ("test/f1/体育", "test/f1/体育"), ("test/f1/é", "test/f1/é"), ("test/f1/e\u0301", "test/f1/é"),
    ("test/f1/😀", "test/f1/_1f600"), ("test/f1/नि", "test/f1/न_93f"), ("a\u200bb", "a_200bb"),
    ("a&b: c/d\n", "a_b: c/d_"), ("/a//b/", "_/a/_/b/_"), ("..", "_.."), ("", "_"),
])
def test_name_of__keeps_letters_of_every_script_and_replaces_ascii_as_ever(text, name):
    assert name_of(text) == name


def test_name_of__long_names_stay_different():
    one, two = name_of("体" * 300 + "a"), name_of("体" * 300 + "b")
    assert one != two
    assert len(one) == len(two) == 250
    assert one[:241] == "体" * 241


def test_flatten__settings_whose_names_would_be_alike_are_spelled_out():
    flat = flatten({"classes": {"a&b": "x", "a+b": "y", "c&d": "z", "да": "1", "не": "0"}})
    assert flat == {"classes.a_26b": "x", "classes.a_2bb": "y", "classes.c_d": "z", "classes.да": "1",
                    "classes.не": "0"}


def test_flatten__refuses_settings_that_stay_alike():
    with pytest.raises(InputError, match=r"'c\.a\.b' and 'c\.a\.b' are one name to MLflow"):
        flatten({"c": {"a.b": 1, "a": {"b": 2}}})
    with pytest.raises(InputError, match="are one name to MLflow, 'é'"):
        flatten({"é": 1, "e\u0301": 2})
