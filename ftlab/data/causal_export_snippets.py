"""Lines without ftlab by which a language model answers prompts and conversations."""

from __future__ import annotations

from typing import Any

from ftlab.backbones.export_code import CodeLines
from ftlab.backbones.heads.causal import CausalModel
from ftlab.backbones.task_model import TaskModel
from ftlab.data.export_snippets import with_tokenizer

_PREDICT = """
def encode(prompt):
    {render}ids = tokenizer({text}, add_special_tokens={special}, return_token_type_ids=False,
                    return_tensors="pt")["input_ids"]
    return ids{closing}

def predict(prompts):  # what the model writes behind each
    written = []
    for prompt in prompts:
        ids = encode(prompt)
        {shorten}if ids.shape[1] > {room}:
            first = {first}
            ids = torch.cat([ids[:, :first], ids[:, first - {room}:]], dim=1)
        with torch.no_grad():
            tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                                    max_new_tokens={most}, do_sample=False, num_beams=1,
                                    pad_token_id=tokenizer.pad_token_id)
        written.append(tokenizer.decode(tokens[0, ids.shape[1]:], skip_special_tokens=True,
                                        clean_up_tokenization_spaces=False))
    return written
"""
_RENDER = """\
text = tokenizer.apply_chat_template({messages}, tokenize=False, add_generation_prompt=True)
    """
_SHORTER = """
def shorter(turns):  # without the oldest up to the user's next; None where there is no other
    head = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    for place in range(head + 1, len(turns)):
        if turns[place]["role"] == "user":
            return turns[:head] + turns[place:]
"""
_SHORTEN = """\
while ids.shape[1] > {room} and (fewer := shorter(prompt)):
            prompt, ids = fewer, encode(fewer)
        """


def answering(tokenizer: Any, model: TaskModel, turns: str, room: int, longest: int) -> CodeLines:
    """Define `predict`, by the tokenizer that the export has.

    Args:
        tokenizer: of the network.
        model: what the network computes.
        turns: what is written by the chat template: `prompts`, as a user's turn each;
            `conversations`; or nothing, an empty text.
        room: tokens of a prompt.
        longest: tokens of an answer.
    """
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    ends = not turns and set(tokenizer("a")["input_ids"][-1:]) & closing
    messages = {"prompts": '[{"role": "user", "content": prompt}]', "conversations": "prompt"}
    most = str(longest)
    if (positions := _positions(model)) < room + longest:
        most = f"max(1, min({longest}, {positions} - ids.shape[1]))"
    talks = turns == "conversations"
    code = _PREDICT.format(
        render=_RENDER.format(messages=messages[turns]) if turns else "",
        text="text" if turns else "prompt", special=not turns, closing="[:, :-1]" if ends else "",
        shorten=_SHORTEN.format(room=room) if talks else "", room=room, most=most,
        first="int(ids[0, 0] == tokenizer.bos_token_id)" if room > 1 else "0")
    return with_tokenizer(f"{_SHORTER.strip()}\n{code}" if talks else code)


def notes_of(model: TaskModel, turns: str, template: str, room: int, longest: int) -> list[str]:
    """Notes for a user of the lines and of transformers' pipelines.

    Args:
        model: as in `answering`.
        turns: as in `answering`.
        template: of prompts.
        room: as in `answering`.
        longest: as in `answering`.
    """
    notes = [f"Prompts were filled into {template!r}; give them filled."]
    if turns == "prompts":
        notes.append('The lines put each into the chat template; to pipeline(...) give it as '
                     '[{"role": "user", "content": prompt}].')
    elif turns:
        notes[0] = ("A prompt is a conversation, a list of messages {role, content} without those "
                    "of tools; give it without the last answer. Of one that is too long the lines "
                    "leave out whole turns, the oldest first, as in training; before pipeline(...) "
                    f"shorten it to {room} tokens yourself.")
    if (positions := _positions(model)) < room + longest:
        notes.append(f"The network has {positions} positions, prompt and answer together, and the "
                     "lines end an answer at the last; pipeline(...) fails there: give it prompts "
                     f"of at most {max(1, positions - longest)} tokens.")
    return notes


def _positions(model: TaskModel) -> int:
    assert isinstance(model, CausalModel)
    return model.positions
