"""Bad data of every task, through the front door: file and row, how to mend, exit code 2."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import worlds.causal_lm
import yaml
from detection import write_voc
from speech import RATE, say

from ftlab import cli
from ftlab.studies.engine import Machine

Check = Callable[..., tuple[int, str]]
RED, BLUE = ("red", 4.0, 4.0, 30.0, 30.0), ("blue", 8.0, 8.0, 40.0, 40.0)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Check:
    """`ftlab check` of a study with one backbone and one data set: exit code, all that it says."""

    def run(backbone: dict, data: dict, **more: object) -> tuple[int, str]:
        def component(settings: dict) -> dict:
            return {"class_path": settings.pop("class"), "init_args": settings}

        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({
            "name": "bad", "backbones": {"b": component(backbone)},
            "datasets": {"d": component(data)}, "techniques": {"full": "FullFineTuning"},
            "select_by": "val/loss", **more}))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setattr(sys, "argv", ["ftlab", "check", str(path)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not (tmp_path / "mlflow.db").exists()
        return int(caught.value.code or 0), "".join(capfd.readouterr())

    return run


# Detection

DETECTOR = {"class": "TorchvisionDetector", "architecture": "retinanet",
            "trunk": "shufflenet_v2_x0_5", "weights": None, "image_size": 64,
            "levels": {"strides": [16], "width": 16}}


def boxes(root: Path) -> tuple[Path, dict[str, list]]:
    images = {f"{i:02}": [RED if i % 2 else BLUE] for i in range(12)}
    names = list(images)
    lists = {"train": names[:6], "val": names[6:9], "test": names[9:]}
    return write_voc(root / "voc", images, lists), lists


def outside(root: Path) -> None:
    write_voc(root, {"03": [RED, ("red", 50.0, 50.0, 90.0, 60.0)]})


def of_no_area(root: Path) -> None:
    write_voc(root, {"03": [("red", 10.0, 10.0, 10.0, 20.0)]})


def unknown_class(root: Path) -> None:
    write_voc(root, {"10": [("green", 10.0, 10.0, 20.0, 20.0)]})


def no_image(root: Path) -> None:
    (root / "JPEGImages" / "03.png").unlink()


def no_annotation(root: Path) -> None:
    (root / "Annotations" / "03.xml").unlink()


def malformed(root: Path) -> None:
    (root / "Annotations" / "03.xml").write_text("<annotation><object>")


@pytest.mark.parametrize("harm, said", [
    (outside, ("03.xml", "object 2")), (of_no_area, ("03.xml", "object 1")),
    (unknown_class, ("10", "green")), (no_image, ("03", "image")),
    (no_annotation, ("03.xml",)), (malformed, ("03.xml",))], ids=lambda v: getattr(v, "__name__", ""))
def test_object_detection(harm: Callable[[Path], None], said: tuple[str, ...], check: Check,
                          tmp_path: Path) -> None:
    root, _ = boxes(tmp_path)
    assert check(dict(DETECTOR), {"class": "ObjectDetection", "train": str(root)})[0] == 0
    harm(root)
    code, output = check(dict(DETECTOR), {"class": "ObjectDetection", "train": str(root)})
    assert code == 2
    assert all(part in output for part in said), output


# Speech

@pytest.fixture
def recordings(spoken: Path, tmp_path: Path) -> Path:
    """A copy of the table and its recordings."""
    return Path(shutil.copytree(spoken, tmp_path / "spoken")) / "table.csv"


def no_audio(table: Path) -> None:
    table.with_name("07.wav").write_text("not a recording")


def empty(table: Path) -> None:
    soundfile.write(table.with_name("07.wav"), np.zeros(0), RATE)


def absent(table: Path) -> None:
    table.with_name("07.wav").unlink()


def too_long(table: Path) -> None:
    soundfile.write(table.with_name("07.wav"), say(["low"], 1.5), RATE)


def unknown_characters(table: Path) -> None:
    table.write_text(table.read_text().replace("07.wav,", "07.wav,zzz "))


def no_transcript(table: Path) -> None:
    lines = table.read_text().splitlines()
    lines[8] = "07.wav,,di"
    table.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("harm, said", [
    (no_audio, ("07.wav",)), (empty, ("07.wav", "empty")), (absent, ("07.wav",)),
    (too_long, ("table:8", "1.50 s")), (unknown_characters, ("lacks z", "table:8")),
    (no_transcript, ("row 8",))], ids=lambda v: getattr(v, "__name__", ""))
def test_speech_recognition(harm: Callable[[Path], None], said: tuple[str, ...], check: Check,
                            recordings: Path, tiny_whisper: Path, tiny_wav2vec2: Path) -> None:
    # Whisper's vocabulary of bytes lacks nothing
    source = str(tiny_wav2vec2 if harm is unknown_characters else tiny_whisper)
    data = {"class": "SpeechRecognition", "train": str(recordings)}
    code, output = check({"class": "HuggingFace", "source": source}, dict(data))
    assert code == 0, output
    assert output.count("resampled") == 1, "8 kHz for a network of 16 kHz: said once"
    harm(recordings)
    code, output = check({"class": "HuggingFace", "source": source}, dict(data))
    assert code == 2, output
    assert all(part in output for part in said), output


# Language models

@pytest.fixture
def prompts(request: pytest.FixtureRequest) -> tuple[dict, dict, Path]:
    backbone, data = worlds.causal_lm.make(request.getfixturevalue)()
    table = Path(data.sources["train"])
    return ({"class": "HuggingFace", "source": backbone.source},
            {"class": "CausalLM", "train": str(table), "prompt": "the film was {text} not",
             "response": "{opinion}", "max_length": 16}, table)


def test_causal_lm__prompts_are_cut_aloud_and_answers_never(
    prompts: tuple[dict, dict, Path], check: Check
) -> None:
    backbone, data, table = prompts
    table.write_text(table.read_text() + " ".join(["film"] * 30) + ",bad\n")
    code, output = check(dict(backbone), dict(data))
    assert code == 0, output
    assert "1 of" in output and "cut" in output, output
    table.write_text(table.read_text() + "film," + " ".join(["bad"] * 30) + "\n")
    code, output = check(dict(backbone), dict(data))
    assert code == 2
    assert "row 58" in output or "prompts:58" in output, output


# Tagging

CORPUS = "\n".join(f"good B-X\nfilm O\nbad {'B-Y' if i % 2 else 'O'}\n" for i in range(20))


@pytest.mark.parametrize("line, said", [
    ("good", "line 6"), ("good I-Y", "line 6"), ("good Z-X", "line 6")])
def test_token_classification(line: str, said: str, check: Check, tiny_bert: Path,
                              tmp_path: Path) -> None:
    path = tmp_path / "corpus.conll"
    path.write_text(CORPUS)
    backbone = {"class": "HuggingFace", "source": str(tiny_bert)}
    data = {"class": "TokenClassification", "train": str(path), "max_length": 16}
    assert check(dict(backbone), dict(data))[0] == 0
    lines = CORPUS.split("\n")
    lines[5] = line
    path.write_text("\n".join(lines))
    code, output = check(dict(backbone), dict(data))
    assert code == 2
    assert "corpus.conll" in output and said in output, output


def test_token_classification__a_type_that_train_lacks(check: Check, tiny_bert: Path,
                                                       tmp_path: Path) -> None:
    train, test = tmp_path / "train.conll", tmp_path / "test.conll"
    train.write_text(CORPUS)
    test.write_text("good B-NEW\n")
    code, output = check({"class": "HuggingFace", "source": str(tiny_bert)},
                         {"class": "TokenClassification", "train": str(train), "test": str(test),
                          "max_length": 16})
    assert code == 2
    assert "NEW" in output and "test" in output, output


# Settings

def test_batch_size__that_the_devices_cannot_share(
        check: Check, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = {"class": "HuggingFace", "source": str(tiny_bert)}
    data = {"class": "TextClassification", "train": str(reviews), "max_length": 16,
            "batch_size": 9}
    monkeypatch.setattr(Machine, "this", classmethod(lambda cls: cls(8, ())))  # whatever this one has
    assert check(dict(backbone), dict(data), trainer={"devices": 3})[0] == 0
    code, output = check(dict(backbone), dict(data), trainer={"devices": 2})
    assert code == 2
    assert "full on d" in output and "batch_size 9" in output and "set batch_size: 8" in output


@pytest.mark.parametrize("speech, said", [
    ({"seconds": 40}, "seconds is 40, and it reads at most 1"),
    ({"language": "klingon"}, "language must be one that Whisper knows"),
    ({"seconds": -1}, "seconds must be above 0"), ({"second": 1}, "unknown key")])
def test_speech(speech: dict, said: str, check: Check, spoken: Path, tiny_whisper: Path) -> None:
    code, output = check({"class": "HuggingFace", "source": str(tiny_whisper), "speech": speech},
                         {"class": "SpeechRecognition", "train": str(spoken / "table.csv")})
    assert code == 2
    assert said in output and "Traceback" not in output, output


def test_image_size__that_ssdlite_was_not_made_for(check: Check, tmp_path: Path) -> None:
    root, _ = boxes(tmp_path)
    backbone = DETECTOR | {"architecture": "ssdlite"}
    data = {"class": "ObjectDetection", "train": str(root)}
    assert check(dict(backbone), dict(data))[0] == 0
    code, output = check(dict(backbone), data | {"image_size": 128})
    assert code == 2
    assert "image_size 128x128" in output and "64x64 only" in output


NF4 = {"quant_type": "nf4"}


@pytest.mark.parametrize("quantize, more, said", [
    (NF4, {}, "full on d from b: FullFineTuning trains weights of the backbone, and these are quantised"),
    (NF4, {"techniques": {"loha": "LoHa"}}, "PEFT's loha does not go with quantised weights"),
    (NF4, {"techniques": {"pissa": "PiSSA"}}, "pissa takes its start out of the weights, which are quantised"),
    (NF4, {"techniques": {"lora": {"class_path": "LoRA", "before": [{"technique": "LoRA"}]}}},
     "before/0: LoRA adds to the network what is merged for the next fit"),
    (NF4, {"techniques": {"lora": "LoRA"}, "trainer": {"devices": 2, "strategy": "fsdp"}},
     "strategy fsdp does not share out the weights of a quantised base"),
    (NF4, {"techniques": {"lora": "LoRA"}, "trainer": {"precision": "64-true"}}, "do not multiply in float64"),
    ({"quant_type": "int4"}, {}, "expected one of 'nf4', 'fp4', 'int8', got int4"),
    ({"quant_type": "int8", "double_quant": True}, {}, "double_quant is of nf4 and fp4"),
    ({"bits": 4}, {}, "bits: unknown key")])
def test_quantised_base(quantize: dict, more: dict, said: str, check: Check, tiny_bert: Path,
                        reviews: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")
    code, output = check(
        {"class": "HuggingFace", "source": str(tiny_bert), "pooling": "mean", "quantize": quantize},
        {"class": "TextClassification", "train": str(reviews), "max_length": 16, "batch_size": 8}, **more)
    assert code == 2
    assert said in output and "Traceback" not in output, output


def test_quantised_base__of_a_network_that_has_nothing_to_quantise(
    check: Check, tiny_resnet: Path, shapes: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")
    code, output = check({"class": "HuggingFace", "source": str(tiny_resnet), "quantize": NF4},
                         {"class": "ImageClassification", "train": str(shapes)},
                         techniques={"lora": "LoRA"})
    assert code == 2
    assert "quantize takes linear layers (nn.Linear), which the blocks of" in output, output


def test_quantised_base__without_bitsandbytes(check: Check, tiny_bert: Path, reviews: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftlab.backbones.quantized.layers", None)
    code, output = check({"class": "HuggingFace", "source": str(tiny_bert), "quantize": NF4},
                         {"class": "TextClassification", "train": str(reviews), "max_length": 16},
                         techniques={"lora": "LoRA"})
    assert code == 2
    assert "pip install 'ftlab[quantized]'" in output, output
