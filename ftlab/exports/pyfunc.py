"""An exported folder as a model of MLflow's: its card's lines in a file that MLflow executes."""

from __future__ import annotations

import io
import tempfile
import textwrap
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from ftlab.backbones.load_pretrained import quiet
from ftlab.errors import Incompatible
from ftlab.exports import verify
from ftlab.exports.loading_code import LoadingCode, import_lines
from ftlab.exports.restore_run import Restored
from ftlab.tracking.registry import Registrable, Registry

_CODE = '''"""A model that ftlab has exported; it needs no ftlab. MLflow calls `Exported`."""

{imports}

score_names = {scores}


def load(folder):
{body}
    return predict


class Exported(PythonModel):
    def load_context(self, context):
        self.predict_examples = load(context.artifacts["model"])

    def predict(self, context, model_input: pandas.DataFrame, params=None):
        examples = [io.BytesIO(value) if isinstance(value, bytes) else value
                    for value in model_input["{column}"]]
        answer = self.predict_examples(examples)
        predictions, scores = answer if {gives_scores} else (answer, None)
        table = pandas.DataFrame({{"prediction": predictions}})
        if scores is not None and not score_names:
            table["scores"] = scores
        for place, name in enumerate(score_names):
            table[f"score {{name}}"] = [row[place] for row in scores]
        return table


set_model(Exported())
'''


def register_model(registry: Registry, name: str, restored: Restored, loading: LoadingCode,
                   folder: Path) -> str:
    """Register an exported folder; the version, as `NAME/3`.

    Raises:
        Incompatible: there is no code from raw examples to predictions.
    """
    if not loading.examples:
        data = restored.run.data
        raise Incompatible(f"{type(data).__name__} with {type(data.task).__name__} has no table of "
                           "examples as its input", "export it with --out alone")
    column = loading.column
    sample = verify.samples(restored)[0]
    example = pd.DataFrame({column: [_value(sample.raw)]})
    with quiet():
        answer = loading.run(str(folder))["predict"]([_file(example[column][0])])
    predictions, scores = answer if loading.gives_scores else (answer, [[]])
    # no type is read off []
    predictions = [[""] if prediction == [] else prediction for prediction in predictions]
    given = pd.DataFrame({"prediction": predictions} | {
        f"score {label}": [row[place] for row in scores]
        for place, label in enumerate(loading.score_names)})
    if loading.gives_scores and not loading.score_names:
        given["scores"] = scores
    with tempfile.TemporaryDirectory(prefix="ftlab-") as temporary:
        code = Path(temporary) / "model.py"
        code.write_text(_code(loading, column), encoding="utf-8")
        tags = {f"ftlab.{key}": restored.record.tags[f"ftlab.{key}"]
                for key in ("study", "backbone", "dataset", "technique", "seed")}
        return registry.register(name, restored.record, Registrable(
            code, folder, example, given, _requirements(loading),
            f"{restored.title}, of the study {tags['ftlab.study']}. See its README.md."), tags)


def _code(loading: LoadingCode, column: str) -> str:
    imports = loading.imports | {"import io", "import pandas", "from mlflow.models import set_model",
                                 "from mlflow.pyfunc import PythonModel"}
    return _CODE.format(imports=import_lines(imports), scores=loading.score_names, column=column,
                        gives_scores=loading.gives_scores,
                        body=textwrap.indent(loading.body, "    "))


def _value(raw: Any) -> Any:
    """A text, words or a pair as they are, an image or a recording as the bytes of its file."""
    if isinstance(raw, io.BytesIO):
        return raw.getvalue()
    if isinstance(raw, tuple):
        return list(raw)
    return raw.read_bytes() if isinstance(raw, Path) else raw


def _file(value: Any) -> Any:
    return io.BytesIO(value) if isinstance(value, bytes) else value


def _requirements(loading: LoadingCode) -> list[str]:
    return [f"{name}=={metadata.version(name)}"
            for name in sorted(loading.packages | {"mlflow", "pandas"})]
