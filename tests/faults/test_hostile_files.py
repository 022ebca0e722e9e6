"""Files of strangers through the front door: nothing of them runs, none takes the machine down.

Each sample is refused, or read without what is hostile in it. What one of them could run would
write a marker file.
"""

import builtins
import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import soundfile
import yaml
from detection import write_voc
from PIL import Image

Front = Callable[..., tuple[int, str, str]]
SECONDS, MIB = 20, 200


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that nothing may write; meanwhile a person says yes to whatever is asked."""
    path = tmp_path / "marker"
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("gs", "gswin64c"):
        (commands / name).write_text(f"#!/bin/sh\ntouch {path}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it remembers that there is none
    monkeypatch.setattr(builtins, "input", lambda *_: path.touch() or "y")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(code(path))
    yield path
    assert not path.exists(), "code of a sample has run"


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """A sample that hangs fails."""
    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not refused within {SECONDS} seconds of work, or ten times as much")

    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)  # the machine may be busy with other things
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
        signal.signal(number, handler)


def code(marker: Path) -> str:
    """A module that could do anything when it is imported."""
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n\n\nclass Evil:\n    pass\n"


class Reduce:
    """A pickle of it touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def resident(reset: bool = False) -> int:
    """Most MiB that this process has held since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


def study(folder: Path, backbone: dict, data: dict, **more: object) -> Path:
    def component(settings: dict) -> dict:
        return {"class_path": settings["class"],
                "init_args": {name: value for name, value in settings.items() if name != "class"}}

    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({
        "name": "hostile", "backbones": {"b": component(backbone)},
        "datasets": {"d": component(data)}, "techniques": {"probe": "LinearProbe"}, **more}))
    return path


# Folders of networks


def settings(name: str, **values: object) -> Callable[[Path], None]:
    """Write values into a file of settings."""
    def harm(folder: Path) -> None:
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **values}))

    return harm


def auto_class(folder: Path) -> None:
    settings("tokenizer_config.json", tokenizer_class="AutoModelForImageClassification")(folder)
    settings("config.json", auto_map={"AutoModelForImageClassification": "evil.Evil"})(folder)
    shutil.copy(folder.parent / "evil.py", folder)


def auto_map(folder: Path) -> None:
    names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    settings("config.json", auto_map={name: "evil.Evil" for name in names})(folder)
    settings("tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Evil"]})(folder)
    shutil.copy(folder.parent / "evil.py", folder)


def adapter(folder: Path) -> None:
    settings("adapter_config.json", peft_type="LORA", base_model_name_or_path="a/b", r=2,
             target_modules=["query"], megatron_config={"a": 1}, megatron_core="evil")(folder)


def deep(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")


def huge(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(10**12)


def no_object(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")


NETWORKS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "its tokenizer's class asks for code": (auto_class, "tokenizer_config.json: tokenizer_class"),
    "code beside the weights": (auto_map, None),
    "a kernel of a hub": (settings("config.json", attn_implementation="evil/kernel",
                                   experts_implementation="evil/kernel"), None),
    "flash attention, which a hub would give": (
        settings("config.json", _attn_implementation="flash_attention_2"), None),
    "other weights than those that are checked": (
        settings("config.json", transformers_weights="evil.bin"), None),
    "an adapter with a module to import": (adapter, "adapter_config.json"),
    "ten million layers": (settings("config.json", num_hidden_layers=10**7),
                           "config.json: num_hidden_layers is 10000000"),
    "nested ten million layers": (settings("config.json", text_config={"num_layers": [[10**7]]}),
                                  "config.json: text_config.num_layers is 10000000"),
    "fewer than no layers": (settings("config.json", num_hidden_layers=-2), "is -2, which is negative"),
    "a billion labels": (settings("config.json", num_labels=10**9), "num_labels is 1000000000"),
    "wide": (settings("config.json", hidden_size=10**7), "config.json describes a network of more"),
    "a hundred thousand million words": (settings("config.json", vocab_size=10**11),
                                         "config.json describes a network of more"),
    "a negative width": (settings("config.json", hidden_size=-2),
                         "config.json describes a network that transformers cannot build"),
    "half a width": (settings("config.json", hidden_size=2.5), "config.json cannot be used"),
    "no heads": (settings("config.json", num_attention_heads=0),
                 "config.json describes a network that transformers cannot build"),
    "a dtype that is a module": (settings("config.json", dtype="hub"), "config.json cannot be used"),
    "nested lists": (deep, "config.json: more than 100 levels deep"),
    "a terabyte of settings": (huge, "config.json: 953674 MiB, and such a file has"),
    "settings that are a list": (no_object, "tokenizer_config.json: not a JSON object"),
    "a million numbers": (settings("config.json", a=[1] * 10**6), "config.json: more than 1,000,000"),
}


@pytest.mark.parametrize("sample", NETWORKS)
def test_folder__of_a_network(sample: str, tiny_bert: Path, reviews: Path, here: Front,
                              tmp_path: Path) -> None:
    harm, rule = NETWORKS[sample]
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "network"))
    harm(folder)
    study(tmp_path, {"class": "HuggingFace", "source": str(folder)},
          {"class": "TextClassification", "train": str(reviews), "max_length": 16})
    judge(here, rule)


def test_network__of_too_many_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists as long as no rule of numbers sees: each entry makes a module."""
    from torch import nn

    from ftlab.backbones import untrusted_settings
    from ftlab.errors import InputError

    monkeypatch.setattr(untrusted_settings, "_MOST_MODULES", 50)
    with pytest.raises(InputError, match=r"config\.json describes .* more than 50 modules"), \
            untrusted_settings.bounded(10**9, tmp_path / "config.json"):
        nn.ModuleList(nn.Identity() for _ in range(10**6))
    nn.ModuleList(nn.Identity() for _ in range(51))  # nothing stays of it


def judge(here: Front, rule: str | None) -> None:
    """`ftlab check` refuses in two lines, or takes it, and stays small."""
    before = resident(reset=True)
    exit_code, output, errors = here("check", "study.yaml")
    said = output + errors
    assert resident() - before < MIB
    assert "Traceback" not in said, said
    assert exit_code == (0 if rule is None else 2), said
    assert rule is None or rule in said, said


# Files of data


def png(width: int, height: int) -> bytes:
    """The header and a little of an image whose rows are all alike."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(1_000_000), 9)) + chunk(b"IEND", b""))


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def tiff(width: int, height: int) -> bytes:
    """A header that announces one strip."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 8)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\x00" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg(width: int, height: int) -> bytes:
    """Dimensions that the rest of the file does not have."""
    data = saved("JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4:]


POSTSCRIPT = (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
              b"(%pipe%touch /tmp/marker) (w) file\nshowpage\n%%EOF\n")
PIXELS = "has more than 89,478,485 pixels"
PICTURES = {
    "a program in PostScript": (POSTSCRIPT, "no known kind"),
    "a program behind a preview": (b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 32, len(POSTSCRIPT), 0, 0, 0, 0, 0xffff)
                                   + b"\0\0" + POSTSCRIPT, "no known kind"),
    "EPS": (saved("EPS"), "no known kind"),
    "DDS": (saved("DDS"), "no known kind"),
    "AVIF": (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf" + bytes(64), "no known kind"),
    "PNG of 900 million pixels": (png(30_000, 30_000), PIXELS),
    "PNG of 100 million pixels": (png(10_000, 10_000), PIXELS),
    "TIFF of 4 thousand million pixels": (tiff(65_000, 65_000), PIXELS),
    "JPEG of 4 thousand million pixels": (jpeg(65_000, 65_000), PIXELS),
}


@pytest.mark.parametrize("sample", PICTURES)
def test_picture(sample: str, shapes: Path, here: Front, tmp_path: Path) -> None:
    content, rule = PICTURES[sample]
    root = Path(shutil.copytree(shapes, tmp_path / "shapes"))
    (root / "left" / "03.png").write_bytes(content)
    study(tmp_path, {"class": "Torchvision", "name": "shufflenet_v2_x0_5", "weights": None},
          {"class": "ImageClassification", "train": str(root)})
    judge(here, f"{root / 'left' / '03.png'} does not decode as an image: it ")
    assert rule in "".join(here("check", "study.yaml")[1:])


def test_picture__in_the_lines_of_an_export(tmp_path: Path) -> None:
    from ftlab.data import export_snippets
    from ftlab.exports.loading_code import executed

    names = executed(["from PIL import Image", "from PIL import ImageOps",
                      "from torchvision.transforms.v2 import functional"], export_snippets._IMAGE, {})
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    with pytest.raises(OSError, match="cannot identify image file"):
        names["read"](tmp_path / "a.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")
    assert names["read"](tmp_path / "b.png").shape == (3, 6, 8)


def test_picture__in_a_list_of_a_hub_s_table(tmp_path: Path) -> None:
    """`predict` reads every column, and `datasets` decodes what is in one."""
    datasets = pytest.importorskip("datasets")
    from ftlab.data import hub

    rows = {"text": ["a", "b"], "seen": [[{"bytes": POSTSCRIPT, "path": None}]] * 2}
    features = datasets.Features({"text": datasets.Value("string"),
                                  "seen": datasets.List(datasets.Image())})
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows, features)}).save_to_disk(
        tmp_path / "saved")
    columns = hub.all_columns(f"hf:{tmp_path / 'saved'}", "test")
    assert columns["seen"][0][0]["bytes"] == POSTSCRIPT


def flac(seconds: int) -> bytes:
    """A recording whose header announces more than is there."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(4096), 16_000, format="FLAC")
    data = bytearray(file.getvalue())
    place = 8 + 13  # of the 36 bits with the number of samples, in the block STREAMINFO
    samples = seconds * 16_000
    data[place] = (data[place] & 0xF0) | samples >> 32
    data[place + 1:place + 5] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(data)


def silence(seconds: int) -> bytes:
    """A recording that is as long as it says, in few bytes."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 8, format="FLAC", subtype="PCM_16") as writer:
        for _ in range(seconds // 60):
            writer.write(np.zeros((8000 * 60, 8), np.int16))
    return file.getvalue()


@pytest.mark.parametrize("make, seconds, rule", [
    (flac, 10**6, "16667 minutes"), (silence, 60 * 40, "40 minutes of 8 channels"),
], ids=["announced", "packed"])
def test_recording__of_days(
    make: Callable[[int], bytes], seconds: int, rule: str, here: Front, tmp_path: Path
) -> None:
    content = make(seconds)
    assert len(content) < 2**20
    for label in "ab":
        (tmp_path / "sound" / label).mkdir(parents=True)
        for number in range(4):
            soundfile.write(tmp_path / "sound" / label / f"{number}.flac",
                            np.linspace(-1, 1, 900 + number), 8000)
    (tmp_path / "sound" / "a" / "1.flac").write_bytes(content)
    from ftlab.data.audio_classification import AudioClassification
    from ftlab.errors import InputError

    before = resident(reset=True)
    with pytest.raises(InputError) as refused:
        AudioClassification(str(tmp_path / "sound")).load()
    assert resident() - before < MIB
    assert rule in refused.value.what and "a/1.flac" in refused.value.what


def of_unknown_length(samples: np.ndarray) -> bytes:
    """FLAC as an encoder writes it to a pipe: its header says no number of samples."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="FLAC")
    data = bytearray(file.getvalue())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


@pytest.mark.parametrize("length", [1, 20_000, 2**20, 2**21 + 5])
def test_recording__of_unknown_length_is_read_to_its_end(length: int) -> None:
    from ftlab.data.audio_decode import decode_audio

    steps = np.arange(length) % 2000 - 1000
    both = np.stack([steps, 2 * steps], 1).astype(np.int16)
    wave, rate = decode_audio(of_unknown_length(both), "a")
    assert rate == 16_000
    assert np.array_equal(wave, np.float32(1.5 / 2**15) * steps.astype(np.float32))


def test_recording__of_unknown_length_has_its_limit(monkeypatch) -> None:
    from ftlab.data import audio_decode
    from ftlab.errors import InputError

    data = of_unknown_length(np.zeros((3000, 2), np.int16))
    monkeypatch.setattr(audio_decode, "MOST", 6000)
    assert len(audio_decode.decode_audio(data, "a")[0]) == 3000
    monkeypatch.setattr(audio_decode, "MOST", 5999)
    with pytest.raises(InputError, match="a lasts at least 0 minutes of 2 channels"):
        audio_decode.decode_audio(data, "a")


def test_extractor__without_its_package(tmp_path: Path, monkeypatch) -> None:
    """The classes that stand in for those whose package is missing."""
    import transformers

    from ftlab.backbones.speech_settings import read_extractor
    from ftlab.errors import InputError

    def missing(*_: object, **__: object) -> None:
        raise ImportError("\nPop2PianoFeatureExtractor requires the librosa library.\nInstall it")

    (tmp_path / "preprocessor_config.json").write_text("{}")
    monkeypatch.setattr(transformers.AutoFeatureExtractor, "from_pretrained", missing)
    with pytest.raises(InputError, match="s: no feature extractor that can be read") as refused:
        read_extractor(tmp_path, None, "s")
    assert "requires the librosa library" in refused.value.what
    assert len(refused.value.what.splitlines()) == 1


# Sources that are not what they seem


def text_folder(root: Path) -> Path:
    for label in ("bad", "good"):
        (root / "texts" / label).mkdir(parents=True)
        for number in range(12):
            (root / "texts" / label / f"{number}.txt").write_text(f"a {label} film, the {number}")
    return root / "texts"


def link_to_a_file(root: Path) -> tuple[str, str | None]:
    (root / "secret").write_text("a private key")
    texts = text_folder(root)
    (texts / "bad" / "3.txt").unlink()
    (texts / "bad" / "3.txt").symlink_to(root / "secret")
    return str(texts), f"{texts / 'bad' / '3.txt'} leads out of {texts}"


def link_to_a_folder(root: Path) -> tuple[str, str | None]:
    texts = text_folder(root)
    (root / "private").mkdir()
    (root / "private" / "1.txt").write_text("a private key")
    (texts / "worse").symlink_to(root / "private")
    return str(texts), f"leads out of {texts}"


def link_within(root: Path) -> tuple[str, str | None]:
    texts = text_folder(root)
    (texts / "good" / "20.txt").write_text("one more")
    (texts / "bad" / "21.txt").symlink_to("../good/20.txt")
    (root / "alias").symlink_to(texts)
    return str(root / "alias"), None


def pipes_in_a_folder(root: Path) -> tuple[str, str | None]:
    texts = text_folder(root)
    os.mkfifo(texts / "bad" / "30.txt")
    (texts / "bad" / "31.txt").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(texts / "good")  # addresses of sockets are short
        one.bind("32.txt")
        os.chdir(here)
    return str(texts), None


def pipe(root: Path) -> tuple[str, str | None]:
    os.mkfifo(root / "table.csv")
    return str(root / "table.csv"), "table.csv: neither a file nor a folder"


def device(root: Path) -> tuple[str, str | None]:
    (root / "table.csv").symlink_to("/dev/zero")
    return str(root / "table.csv"), "table.csv: neither a file nor a folder"


def parquet_bomb(root: Path) -> tuple[str, str | None]:
    import pyarrow as pa
    from pyarrow import parquet

    rows = 5_000_000
    indices = pa.array(np.zeros(rows, np.int8))
    table = pa.table({name: pa.DictionaryArray.from_arrays(indices, pa.array(["a film"]))
                      for name in ("text", "label")})
    parquet.write_table(table, root / "table.parquet", row_group_size=rows)
    return str(root / "table.parquet"), "announces 5,000,000 rows in"


def script(root: Path) -> tuple[str, str | None]:
    pytest.importorskip("datasets")
    (root / "evil").mkdir()
    shutil.copy(root / "evil.py", root / "evil" / "evil.py")
    return f"hf:{root / 'evil'}", "does not load"


def card(root: Path, text: str) -> tuple[str, str | None]:
    pytest.importorskip("datasets")
    (root / "hub").mkdir()
    (root / "hub" / "train.csv").write_text("text,label\na,b\n")
    (root / "hub" / "README.md").write_text(f"---\n{text}\n---\n")
    return f"hf:{root / 'hub'}", "README.md"


def card_with_an_address(root: Path) -> tuple[str, str | None]:
    return card(root, 'x: &a http://127.0.0.1:9/a.csv\n"configs": [{data_files: *a}]')


def card_with_a_path(root: Path) -> tuple[str, str | None]:
    return card(root, "configs:\n- data_files: [{split: train, path: ../../*.txt}]")


def card_behind_an_empty_line(root: Path) -> tuple[str, str | None]:
    source, rule = card(root, "configs:\n- data_files: ../../*.txt")
    text = (root / "hub" / "README.md").read_text()
    (root / "hub" / "README.md").write_text(f"\n \n{text}")
    return source, rule


def card_far_below(root: Path) -> tuple[str, str | None]:
    source, rule = card(root, "configs:\n- data_files: ../../*.txt")
    text = (root / "hub" / "README.md").read_text()
    (root / "hub" / "README.md").write_text("\n" * 2**20 + text)
    return source, rule


def link_in_a_hub_s_folder(root: Path) -> tuple[str, str | None]:
    source, _ = card(root, "license: mit")
    (root / "secret").write_text("text,label\na private key,b\n")
    (root / "hub" / "test.csv").symlink_to(root / "secret")
    return source, f"{root / 'hub' / 'test.csv'} leads out of {root / 'hub'}"


def folder_in_a_hub_s_folder(root: Path) -> tuple[str, str | None]:
    source, _ = card(root, "license: mit")
    (root / "private").mkdir()
    (root / "private" / "test.csv").write_text("text,label\na private key,b\n")
    (root / "hub" / "data").symlink_to(root / "private")
    return source, f"{root / 'hub' / 'data'} leads out of {root / 'hub'}"


def card_of_aliases(root: Path) -> tuple[str, str | None]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return card(root, "\n".join([*lines, "configs: *a11"]))


SOURCES = (card_with_an_address, card_with_a_path, card_of_aliases, card_behind_an_empty_line,
           card_far_below, link_in_a_hub_s_folder, folder_in_a_hub_s_folder, link_to_a_file,
           link_to_a_folder, link_within, pipes_in_a_folder, pipe, device, parquet_bomb, script)


@pytest.mark.parametrize("sample", SOURCES, ids=lambda sample: sample.__name__)
def test_source(sample: Callable[[Path], tuple[str, str | None]], tiny_bert: Path, here: Front,
                tmp_path: Path) -> None:
    source, rule = sample(tmp_path)
    study(tmp_path, {"class": "HuggingFace", "source": str(tiny_bert)},
          {"class": "TextClassification", "train": source, "max_length": 16})
    judge(here, rule)


def test_card__of_the_hub_is_read_before_its_data(tmp_path: Path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    from ftlab.data import hub
    from ftlab.errors import InputError

    card(tmp_path, "configs:\n- data_files: http://127.0.0.1:9/a.csv")
    asked = []

    def download(name: str, **how: object) -> str:
        asked.append((name, how["repo_type"], list(how["allow_patterns"])))
        return str(tmp_path / "hub")

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("the data were read"))
    with pytest.raises(InputError, match="which is not a file of its folder"):
        hub.all_columns("hf:evil/name:a", "test")
    assert asked == [("evil/name", "dataset", ["README.md", ".huggingface.yaml"])]


def test_link__to_a_place_that_is_allowed(tiny_bert: Path, here: Front, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    source, rule = link_to_a_folder(tmp_path)
    study(tmp_path, {"class": "HuggingFace", "source": str(tiny_bert)},
          {"class": "TextClassification", "train": source, "max_length": 16,
           "validation": source, "test": source})
    judge(here, rule)
    monkeypatch.setenv("FTLAB_LINKS", f"/nowhere{os.pathsep}{tmp_path / 'private'}")
    judge(here, None)


def test_paragraphs__pass_over_a_pipe(tmp_path: Path) -> None:
    from ftlab.data.prompt_templates import _paragraphs

    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one\n\ntwo\n")
    os.mkfifo(tmp_path / "texts" / "b.txt")
    assert len(_paragraphs(tmp_path / "texts", "texts", ["text"])[0]) == 2


LAUGHS = '<!DOCTYPE a [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)) + "]>"


@pytest.mark.parametrize("text, rule", [
    (LAUGHS + "<annotation><filename>&a11;</filename></annotation>", "03.xml is not well-formed"),
    ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>', "03.xml"),
], ids=["entities", "files"])
def test_annotation(text: str, rule: str, here: Front, tmp_path: Path) -> None:
    boxes = {f"{number:02}": [("red", 4.0, 4.0, 30.0, 30.0)] for number in range(12)}
    root = write_voc(tmp_path / "voc", boxes)
    (root / "Annotations" / "03.xml").write_text(text)
    study(tmp_path, {"class": "TorchvisionDetector", "architecture": "retinanet",
                     "trunk": "shufflenet_v2_x0_5", "weights": None, "image_size": 64,
                     "levels": {"strides": [16], "width": 16}},
          {"class": "ObjectDetection", "train": str(root)})
    judge(here, rule)


# Weights


def weights_of_a_network(folder: Path, marker: Path, tiny_bert: Path) -> tuple[dict, Path]:
    shutil.copytree(tiny_bert, folder / "network")
    (folder / "network" / "model.safetensors").unlink()
    file = folder / "network" / "pytorch_model.bin"
    file.write_bytes(pickle.dumps({"a": Reduce(marker)}, 2))
    return {"class": "HuggingFace", "source": str(folder / "network"), "pooling": "mean"}, file


def shards_elsewhere(folder: Path, marker: Path, tiny_bert: Path) -> tuple[dict, Path]:
    shutil.copytree(tiny_bert, folder / "network")
    (folder / "network" / "model.safetensors").rename(folder / "elsewhere.safetensors")
    file = folder / "network" / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    return {"class": "HuggingFace", "source": str(folder / "network"), "pooling": "mean"}, file


def header(folder: Path, marker: Path, tiny_bert: Path) -> tuple[dict, Path]:
    shutil.copytree(tiny_bert, folder / "network")
    file = folder / "network" / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    return {"class": "HuggingFace", "source": str(folder / "network"), "pooling": "mean"}, file


def torchvision_weights(folder: Path, marker: Path, tiny_bert: Path) -> tuple[dict, Path]:
    (folder / "a.pth").write_bytes(pickle.dumps(Reduce(marker), 2))
    return {"class": "Torchvision", "name": "shufflenet_v2_x0_5",
            "weights": str(folder / "a.pth")}, folder / "a.pth"


def timm_weights(folder: Path, marker: Path, tiny_bert: Path) -> tuple[dict, Path]:
    pytest.importorskip("timm")
    (folder / "a.pth").write_bytes(pickle.dumps(Reduce(marker), 2))
    return {"class": "Timm", "name": "resnet18", "weights": str(folder / "a.pth")}, folder / "a.pth"


def ggml(folder: Path, marker: Path, tiny_bert: Path) -> tuple[dict, Path]:
    """A file that is none, beside settings with code."""
    pytest.importorskip("gguf")
    (folder / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    auto_map(folder)
    return {"class": "HuggingFace", "source": str(folder / "a.gguf")}, folder / "a.gguf"


@pytest.mark.parametrize("sample", [
    weights_of_a_network, shards_elsewhere, header, torchvision_weights, timm_weights, ggml],
    ids=lambda sample: sample.__name__)
def test_weights(sample: Callable[..., tuple[dict, Path]], task: object, tiny_bert: Path,
                 marker: Path, tmp_path: Path) -> None:
    from ftlab.errors import InputError
    from ftlab.studies.discover import family, members

    folder = tmp_path / "sample"
    folder.mkdir()
    shutil.copy(tmp_path / "evil.py", tmp_path / "sample" / "evil.py")
    backbone, file = sample(folder, marker, tiny_bert)
    before = resident(reset=True)
    with pytest.raises(InputError) as refused:
        members(family("backbones"))[backbone.pop("class")](**backbone).build(task)
    assert str(file) in refused.value.what
    assert resident() - before < MIB


# Study files


@pytest.mark.parametrize("text, rule", [
    ("backbones: {b: !!python/object/apply:evil.Evil []}", "study.yaml"),
    ("backbones: {b: !!python/module:evil }", "study.yaml"),
    ("backbones: {b: {class_path: evil.Evil}}", "evil.Evil"),
    ("backbones: {b: {class_path: os.system, init_args: {command: touch marker}}}", "os.system"),
    ("backbones: {b: {class_path: ftlab.cli.main}}", "ftlab.cli.main"),
    ("backbones: {b: {_target_: evil.Evil}}", "expected a class"),
    ("backbones: {b: {class_path: HuggingFace, init_args: {source: 'package:evil/x'}}}", "evil"),
], ids=["object", "module", "class", "function", "own function", "target", "package"])
def test_study_file(text: str, rule: str, here: Front, reviews: Path, tmp_path: Path) -> None:
    study(tmp_path, {"class": "Nothing"}, {"class": "TextClassification", "train": str(reviews)})
    rest = yaml.safe_load((tmp_path / "study.yaml").read_text())
    del rest["backbones"]
    (tmp_path / "study.yaml").write_text(f"{text}\n{yaml.safe_dump(rest)}")
    judge(here, rule)
