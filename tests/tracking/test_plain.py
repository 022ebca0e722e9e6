import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab.tracking.plain import LONGEST_PARAM, flatten, is_secret, name_of, redact, tag_values

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
@given(st.text(max_size=300))
def test_name_of__mlflow_takes_it(text):
    assert re.fullmatch(r"[A-Za-z0-9_\-. :/]{0,250}", name_of(text))
