import shutil

import pytest

from ftlab.backbones import hub
from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import InputError


@pytest.fixture
def downloads(monkeypatch, save):
    """Stands in for the hub: what was asked of it, and a cached folder as the answer."""
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(save("bert"))

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    return asked


def test_hub__revision_is_asked_for_and_weights_only_when_needed(downloads, task):
    backbone = HuggingFace("org/model", revision="abc123")
    backbone.build(task, meta=True)
    assert {entry[:2] for entry in downloads} == {("org/model", "abc123")}
    assert not any("safetensors" in pattern for _, _, patterns in downloads for pattern in patterns)
    backbone.build(task)
    assert ("org/model", "abc123", ["model*.safetensors"]) in downloads
    assert not any("bin" in pattern for _, _, patterns in downloads for pattern in patterns)


def test_weight_files__shards_are_read_and_fingerprinted(backbone, task, tmp_path, save):
    whole = backbone("bert").build(task)
    whole.network.bert.save_pretrained(tmp_path, max_shard_size="4KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(save("bert") / name, tmp_path)
    files = hub.weight_files(tmp_path)
    assert len(files) > 2
    sharded = HuggingFace(str(tmp_path))
    before = sharded.fingerprint
    for (name, a), (_, b) in zip(whole.named_parameters(),
                                 sharded.build(task).named_parameters(), strict=True):
        assert "classifier" in name or (a == b).all(), name
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"\x01")
    assert sharded.fingerprint != before
    files[1].unlink()
    with pytest.raises(InputError, match=files[1].name):
        sharded.build(task)


def test_tokenizer__comes_from_elsewhere_where_named(task, tmp_path, save):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(save("bert") / name, tmp_path)
    with pytest.raises(InputError, match="no tokenizer") as error:
        HuggingFace(str(tmp_path)).preprocessing  # noqa: B018
    assert "give tokenizer" in error.value.mend
    other = HuggingFace(str(tmp_path), tokenizer=str(save("bert")))
    assert other.preprocessing.encode(["good film"], 8) == \
        HuggingFace(str(save("bert"))).preprocessing.encode(["good film"], 8)


def test_tokenizer__is_pinned_by_its_name(downloads, task, tmp_path, save):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(save("bert") / name, tmp_path)
    for tokenizer, revision in (("org/words@abc123", "abc123"), ("org/words", None)):
        downloads.clear()
        HuggingFace(str(tmp_path), tokenizer=tokenizer).preprocessing  # noqa: B018
        assert {entry[:2] for entry in downloads} == {("org/words", revision)}
    folder = tmp_path / "words@home"
    shutil.copytree(save("bert"), folder)
    downloads.clear()
    HuggingFace(str(tmp_path), tokenizer=str(folder)).preprocessing  # noqa: B018
    assert downloads == []


def test_hub__an_error_without_words_is_named(monkeypatch):
    def refuse(*_, **__):
        raise OSError

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match="not available from the hub: OSError"):
        hub.find_folder("org/model", None)
