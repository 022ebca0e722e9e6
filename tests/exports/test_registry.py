"""Models of every kind of input, as MLflow's models: saved, loaded from their files and asked."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest
from exported import finding, restored
from matrix import make_world

from ftlab.errors import Incompatible
from ftlab.exports.export import write_model
from ftlab.exports.loading_code import LoadingCode
from ftlab.exports.pyfunc import register_model
from ftlab.exports.restore_run import Restored
from ftlab.exports.verify import expected_outputs, samples
from ftlab.tasks.same_prediction import alike
from ftlab.tracking.records import RunRecord
from ftlab.tracking.registry import Registrable, Registry

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:mlflow.*",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
COLUMNS = {
    "multi_label": "text", "token_classification": "words", "causal_lm": "prompt",
    "image_classification": "image", "object_detection": "image",
    "speech_recognition_whisper": "audio",
}


class Kept(Registry):
    """Saves the model beside, and registers nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}.db")
        self.path = path

    def register(self, name: str, record: RunRecord, what: Registrable,
                 tags: Mapping[str, str]) -> str:
        self.what = what
        self._save(self.path, record, what, None)
        return f"{name}/1"


@pytest.fixture
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Restored]:
    return lambda world: restored(finding(make_world(world, request.getfixturevalue)),
                                  "FullFineTuning", tmp_path)


@pytest.mark.parametrize("world", COLUMNS)
def test_model__answers_a_table(world: str, found: Callable, tmp_path: Path) -> None:
    import mlflow

    model = found(world)
    folder = tmp_path / "export"
    folder.mkdir()
    chosen = samples(model)[:2]
    expected = expected_outputs(model, chosen)
    loading, _ = write_model(model, folder)
    registry = Kept(tmp_path / "kept")
    assert register_model(registry, "m", model, loading, folder) == "m/1"
    assert list(registry.what.example) == [COLUMNS[world]]
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "kept"))
    raw = [s.raw.read_bytes() if isinstance(s.raw, Path) else s.raw for s in chosen]
    table = loaded.predict(pd.DataFrame({COLUMNS[world]: raw}))
    assert alike(table["prediction"].tolist(), [ours.record["prediction"] for ours in expected], 1e-3)
    many = loaded.predict(pd.DataFrame({COLUMNS[world]: raw * 20}))  # more than at once
    assert alike(many["prediction"].tolist(), table["prediction"].tolist() * 20, 1e-4)
    nothing = loaded.predict(pd.DataFrame({COLUMNS[world]: raw[:0]}, dtype=object))
    assert (len(nothing), list(nothing)) == (0, list(table))
    assert loaded.metadata.signature.inputs.input_names() == [COLUMNS[world]]
    assert loaded.metadata.signature.outputs.input_names() == list(table)


def test_model__without_predictions_is_refused(found: Callable, tmp_path: Path) -> None:
    model = found("text_classification")
    with pytest.raises(Incompatible, match="has no table of examples"):
        register_model(Kept(tmp_path / "kept"), "m", model, LoadingCode(), tmp_path)
