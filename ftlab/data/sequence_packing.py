"""Training rows of prompt and answer: several examples in one, or one alone.

Packing saves the padding. It changes no result: the boundaries between examples are kept (see
`ftlab.backbones.heads.causal`), and a batch has the same examples as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ftlab.backbones.task_model import IGNORED
from ftlab.data.batches import ExampleRow
from ftlab.data.sampling import longest_first


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Positions of the sequences in each row: longest first, into the first row with room.

    Johnson (1973), https://dspace.mit.edu/handle/1721.1/57819: at most 11/9 of the least number
    of rows, plus one.

    Args:
        lengths: of the sequences; one longer than `width` has a row of its own.
        width: of a row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in longest_first(lengths):
        for row, left in enumerate(room):
            if lengths[i] <= left:
                rows[row].append(i)
                room[row] -= lengths[i]
                break
        else:
            rows.append([i])
            room.append(width - lengths[i])
    return rows


def balanced(lengths: Sequence[int], width: int) -> list[list[int]]:
    """As many rows as `first_fit` needs, filled alike, so that the longest is as short as it can be.

    A batch seldom fills its last row, and first fit leaves all of the gap there. Lower widths are
    tried by bisection, as MULTIFIT does for machines that share work: Coffman, Garey, Johnson
    (1978), https://doi.org/10.1137/0207001

    Args:
        lengths: as in `first_fit`.
        width: as in `first_fit`.
    """
    rows = first_fit(lengths, width)
    low = max(max(lengths), -(-sum(lengths) // len(rows)))
    high = _longest(rows, lengths)
    while low < high:
        middle = (low + high) // 2
        packed = first_fit(lengths, middle)
        if len(packed) <= len(rows):
            rows, high = packed, _longest(packed, lengths)
        else:
            low = middle + 1
    return rows


def _longest(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return max(sum(lengths[i] for i in row) for row in rows)


@dataclass(frozen=True)
class PackedCollate:
    """Rows (prompt ids, target with `labels`) -> packed batch.

    `inputs` are `input_ids` and `segments` (R, T), `segments` being the example's number within
    the row from 1 and 0 for padding; also `attention_mask` where each has one example. `target`
    has `labels` (R, T), each place's next token or -100. `index` has a position for each example
    (B,).

    Attributes:
        width: longest row, in tokens.
        pad: id of the padding token.
        several: examples in a row; otherwise each has its own.
        prompts: whether prompt tokens are learned as well.
    """

    width: int
    pad: int
    several: bool
    prompts: bool

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        # nothing follows an example's last token, so it is a label alone
        lengths = [len(row.input) + len(row.target["labels"]) - 1 for row in rows]
        layout = balanced(lengths, self.width) if self.several else [[i] for i in range(len(rows))]
        width = _longest(layout, lengths)
        ids = torch.full((len(layout), width), self.pad)
        segments = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for r, places in enumerate(layout):
            start = 0
            for number, i in enumerate(places, 1):
                stop = start + lengths[i]
                tokens = torch.tensor([*rows[i].input, *rows[i].target["labels"]])
                first = 0 if self.prompts else len(rows[i].input) - 1
                ids[r, start:stop] = tokens[:-1]
                segments[r, start:stop] = number
                labels[r, start + first:stop] = tokens[1 + first:]
                if not self.prompts and "learned" in rows[i].target:
                    learned = torch.tensor(rows[i].target["learned"][1:], dtype=torch.bool)
                    labels[r, start:stop] = tokens[1:].where(learned, IGNORED)
                start = stop
        inputs = {"input_ids": ids, "segments": segments}
        if not self.several:
            inputs["attention_mask"] = segments
        return {"inputs": inputs, "target": {"labels": labels},
                "index": torch.tensor([row.position for row in rows])}


@dataclass(frozen=True)
class ChatCollate:
    """Rows (prompt ids, target with `labels` and `learned`) -> batch that may be generated from.

    `inputs` are `input_ids` and `attention_mask` (B, P) of the prompts, padded in front. `target`
    has `text`, `behind` (B, T), the ids that are read behind the prompts, or -100, and `labels`
    (B, P + T - 1), the next token of each place of both where it is learned, or -100.

    Attributes:
        pad: id of the padding token.
    """

    pad: int

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        prompt = max(len(row.input) for row in rows)
        behind = max(len(row.target["labels"]) for row in rows)
        ids = torch.full((len(rows), prompt + behind), self.pad)
        real = torch.zeros_like(ids)
        learned = torch.zeros_like(ids, dtype=torch.bool)
        for r, row in enumerate(rows):
            tokens = [*row.input, *row.target["labels"]]
            start = prompt - len(row.input)
            place = slice(start, start + len(tokens))
            ids[r, place] = torch.tensor(tokens)
            real[r, place] = 1
            learned[r, place] = torch.tensor(row.target["learned"], dtype=torch.bool)
        target = {"labels": ids.where(learned, IGNORED)[:, 1:],
                  "behind": ids.where(real.bool(), IGNORED)[:, prompt:],
                  "text": [row.target["text"] for row in rows]}
        return {"inputs": {"input_ids": ids[:, :prompt], "attention_mask": real[:, :prompt]},
                "target": target, "index": torch.tensor([row.position for row in rows])}
