from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from ftlab.errors import InputError
from ftlab.studies.study import load_study

Write = Callable[..., Path]

PAPER = {
    "citation": "Hu et al. (2021)", "url": "https://arxiv.org/abs/2106.09685",
    "where": "Table 2", "unit": "percent", "tolerance": 0.5,
    "protocol": {"split": "dev", "metric": "accuracy", "averaging": "median of 5 seeds",
                 "preprocessing": "128 tokens", "initialisation": "RoBERTa base"},
    "numbers": {"lora": {"reviews": 95.1}},
}


def paper(**changes: object) -> dict[str, object]:
    return deepcopy(PAPER) | changes


def test_paper__is_read_in_the_metrics_unit(write: Write) -> None:
    found = load_study(write(paper=paper())).paper
    assert found is not None
    (number,) = found.numbers
    assert (number.technique, number.backbone, number.dataset) == ("lora", "bert", "reviews")
    assert number.value == 0.951, "and not 0.9510000000000001"
    assert found.tolerance == pytest.approx(0.005)
    assert (found.metric, found.protocol["averaging"]) == ("test/accuracy", "median of 5 seeds")
    fraction = paper(unit="fraction", tolerance=0.005, numbers={"lora": {"reviews": 0.951}})
    assert load_study(write(paper=fraction)).paper.numbers == found.numbers  # type: ignore[union-attr]  # it has one


def test_paper__and_groups_change_no_hash(write: Write) -> None:
    def hashes(**changes: object) -> list[str]:
        return [cell.key.config for cell in load_study(write(**changes)).cells]

    assert hashes() == hashes(paper=paper()) == hashes(groups={"all": ["reviews"]}, paper=paper(
        numbers={"probe": {"all": {"value": 80, "where": "Table 3"}}}))


def test_paper__of_a_group_and_a_named_backbone(write: Write) -> None:
    said = {"lora": {"all": 90, "reviews from bert": 91}}
    study = load_study(write(groups={"all": ["reviews"]}, paper=paper(numbers=said)))
    assert study.paper is not None
    assert [(n.dataset, n.group) for n in study.paper.numbers] == [("", "all"), ("reviews", "")]


BAD = {
    "key": (paper(citatoin="x"), "paper.citatoin: unknown key", "did you mean 'citation'"),
    "no url": (paper(url=None), "paper.url: has to be said", ""),
    "no protocol": (paper(protocol={"split": "dev"}), "protocol.metric: has to be said", ""),
    "protocol key": (paper(protocol={"splitt": "dev"}), "protocol.splitt: unknown", "'split'"),
    "unit": (paper(unit="%"), "paper.unit: in which unit", "percent"),
    "no unit": (paper(unit=None), "paper.unit: in which unit", "percent"),
    "technique": (paper(numbers={"lroa": {"reviews": 9}}), "numbers.lroa: the study has no technique",
                  "'lora'"),
    "data set": (paper(numbers={"lora": {"review": 9}}), "lora.review: the study has no such",
                 "'reviews'"),
    "fraction as percent": (paper(numbers={"lora": {"reviews": 0.951}}), "looks like a fraction",
                            "multiply by 100"),
    "percent as fraction": (paper(unit="fraction", tolerance=None), "95.1 is no fraction", "percent"),
    "above": (paper(numbers={"lora": {"reviews": 951}}), "951 percent is above 100", ""),
    "text": (paper(numbers={"lora": {"reviews": "95.1%"}}), "expected a number, got '95.1%'", ""),
    "nan": (paper(numbers={"lora": {"reviews": float("nan")}}), "expected a finite number", ""),
    "twice": (paper(numbers={"lora": {"reviews": 95, "reviews from bert": 95}}), "stands twice", ""),
    "none": (paper(numbers={}), "at least one is needed", ""),
    "cost": (paper(metric="cost/train_seconds"), "no metric of a split", ""),
    "tolerance": (paper(tolerance=-1), "paper.tolerance: below zero", ""),
    "list": (["x"], "paper: expected a mapping", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_paper__what_is_wrong_is_refused_with_its_line(write: Write, name: str) -> None:
    said, what, mend = BAD[name]
    path = write(paper=said)
    with pytest.raises(InputError) as caught:
        load_study(path)
    assert what in caught.value.what and mend in caught.value.mend
    line = int(caught.value.what.split(":")[1])
    assert line >= 1 + path.read_text().splitlines().index("paper:")


def test_baseline__is_one_of_the_techniques(write: Write) -> None:
    assert load_study(write()).baseline == ""
    assert load_study(write(baseline="lora")).baseline == "lora"
    with pytest.raises(InputError, match="baseline: the study has no technique 'lroa'") as found:
        load_study(write(baseline="lroa"))
    assert "lora" in str(found.value)


@pytest.mark.parametrize(("groups", "what"), [
    ({"a": ["review"]}, "groups.a: the study has no data set 'review'"),
    ({"a": ["reviews"], "b": ["reviews"]}, "groups.b: reviews stands in a already"),
    ({"a": []}, "groups.a: expected a list"),
    ({}, "reviews in no group"),
    (["reviews"], "groups: expected a mapping"),
])
def test_groups__are_checked(write: Write, groups: object, what: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(write(groups=groups))
    assert what in caught.value.what
