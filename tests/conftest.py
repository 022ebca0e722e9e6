import gc
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cheaper
import hypothesis  # before the garbage is frozen, which a plugin of its looks at
import numpy as np
import pytest
import warm_processes
from postgresql_server import Server, postgresql  # noqa: F401  a fixture

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models gain nothing from threads, and processes with two each on two cores lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long an example takes says more of the machine's other work than of the code.
hypothesis.settings.register_profile(
    "shared machines", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared machines")
pytest_plugins = ["families", "speech", "detection", "segmentation"]
ROOT = Path(__file__).resolve().parent.parent
WORDS = ["good", "fine", "great", "bad", "poor", "awful", "film", "plot", "cast", "score"]
WORDS += ["the", "a", "of", "and", "was", "is", "very", "quite"]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _warm_processes() -> Iterator[None]:
    """What forks processes with the imports done ends with the session."""
    yield
    warm_processes.close()


@pytest.fixture(scope="module", autouse=True)
def _engines_start_at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Engines of this process take warm servers, save in modules that say `SPAWNED = True`."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "SPAWNED", False):
            patch.setattr("ftlab.studies.server_process.spawned", warm_processes.start_server)
        yield


@pytest.fixture(scope="session")
def bare_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which nothing is, made when it is first copied."""
    return tmp_path_factory.mktemp("bare") / "mlflow.db"


@pytest.fixture(scope="module", autouse=True)
def _stores_are_copied(request: pytest.FixtureRequest, bare_store: Path) -> Iterator[None]:
    """New stores are copies of one, save in modules that say `MADE = True`.

    MLflow makes its tables in two seconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "MADE", False):
            patch.setenv(cheaper.BARE_STORE, str(bare_store))
            cheaper.copy_stores(bare_store, patch.setattr)
        yield


@pytest.fixture
def rendered() -> None:
    """Asked for by tests that look at pictures, in modules that say `UNRENDERED = True`."""


@pytest.fixture(autouse=True)
def _figures_are_drawn_and_not_rendered(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In modules that say `UNRENDERED = True`, and in the commands and runs that they start."""
    if getattr(request.module, "UNRENDERED", False) and "rendered" not in request.fixturenames:
        monkeypatch.setenv(cheaper.UNRENDERED, "1")
        cheaper.unrender(monkeypatch.setattr)


_imported = [0]  # modules, when the garbage was last frozen


@pytest.fixture(autouse=True)
def _imports_are_no_garbage() -> None:
    """Each run collects garbage three times to measure memory: not among imports, which stay.

    What a run imports by the way is frozen before the next test; a handful is not worth a look.
    """
    if len(sys.modules) > _imported[0] + 30:
        _imported[0] = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared real data and weights, where there is one."""
    folder = Path(os.environ.get("FTLAB_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set FTLAB_SHARED")
    return folder


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`ftlab ARGUMENTS` in this process, which has the imports done: code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from ftlab import cli

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ftlab", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output, errors = capfd.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), output, errors

    return run


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser from the system's packages, one a module: a test may make a phone of it."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no browser here: apt install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # chromium refuses to be root in one
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with three layers and its tokenizer, as a local folder."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = hf.BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_attention_heads=2, pad_token_id=0,
            intermediate_size=48, num_hidden_layers=3, max_position_embeddings=32,
        )
        hf.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ResNet with three residual layers, as a local folder."""
    import torch
    import transformers as hf

    folder = tmp_path_factory.mktemp("tiny") / "resnet"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.ResNetModel(
            hf.ResNetConfig(
                embedding_size=8, hidden_sizes=[16, 24], depths=[2, 1], layer_type="basic"
            )
        ).save_pretrained(folder)
    hf.ConvNextImageProcessor(size={"shortest_edge": 224}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP with the tokenizer of the tiny BERT, as a local folder."""
    import torch
    import transformers as hf

    folder = tmp_path_factory.mktemp("tiny") / "clip"
    folder.mkdir()
    for path in tiny_bert.glob("*token*"):
        shutil.copy(path, folder)
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
              "num_attention_heads": 2}
    text = {"vocab_size": 22, "max_position_embeddings": 16, "bos_token_id": 2,
            "eos_token_id": 3, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.CLIPModel(hf.CLIPConfig(
            text_config=layers | text, projection_dim=24,
            vision_config=layers | {"image_size": 32, "patch_size": 16},
        )).save_pretrained(folder)
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 texts of two classes that a word tells apart."""
    draw = random.Random(0)
    lines = ["text,label"]
    for i in range(120):
        label = ("bad", "good")[i % 2]
        word = draw.choice(WORDS[3:6] if label == "bad" else WORDS[:3])
        filler = draw.choices(WORDS[6:], k=draw.randint(2, 8))
        filler.insert(draw.randint(0, len(filler)), word)
        lines.append(f"{' '.join(filler)},{label}")
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 images of two classes (bright left, bright right), a folder a class."""
    from PIL import Image

    draw = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data") / "shapes"
    for label, side in (("left", slice(0, 16)), ("right", slice(16, 32))):
        (root / label).mkdir(parents=True)
        for i in range(48):
            pixels = draw.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[:, side] += 100
            Image.fromarray(pixels).save(root / label / f"{i:02}.png")
    return root


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    from ftlab.tracking.tracker import Tracker

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Tracker(f"sqlite:///{path}").open_study("other", {})
    return path


@pytest.fixture(params=["journal", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty storage, of each kind."""
    if request.param == "journal":
        return str(tmp_path / "optuna.journal")
    server: Server = request.getfixturevalue("postgresql")
    return server.database()
