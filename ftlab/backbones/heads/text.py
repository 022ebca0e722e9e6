"""A text per example, from the pre-trained output layer; for a speech encoder that has none, a new one."""

from __future__ import annotations

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.heads.causal import build_causal
from ftlab.backbones.heads.ctc import build_ctc
from ftlab.backbones.heads.encoder_decoder import build_encoder_decoder
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible

_BUILDERS = {
    "AutoModelForCausalLM": build_causal,
    "AutoModelForSeq2SeqLM": build_encoder_decoder,
    "AutoModelForSpeechSeq2Seq": build_encoder_decoder,
    "AutoModelForCTC": build_ctc,
}


def build_text(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """Build the model of a task whose output type is `text`, with the first Auto class that has it.

    Raises:
        Incompatible: the architecture writes no texts of the task's kind.
    """
    names = [name for name in task.auto_classes if name in _BUILDERS] or list(_BUILDERS)
    auto = checkpoint.own_class(names)
    if auto is None:
        raise Incompatible(f"{checkpoint.label}: {checkpoint.config.model_type} writes no text "
                           f"({', '.join(names)} do not know it)", "choose another backbone")
    return _BUILDERS[auto.__name__](checkpoint, auto)
