"""Two ranks that are forks of a test, over gloo."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh


def on_two_ranks(folder: Path, act: Callable[[Any], Any]) -> list[Any]:
    """What each of two forks makes of their mesh."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def rank(number: int) -> None:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number,
                                       world_size=2)
        try:
            answers.put((number, act(init_device_mesh("cpu", (2,)))))
        except BaseException as error:
            answers.put((number, error))
            raise
        finally:
            distributed.destroy_process_group()

    ranks = [context.Process(target=rank, args=(number,)) for number in (0, 1)]
    for process in ranks:
        process.start()
    found = dict(answers.get() for _ in ranks)
    for process in ranks:
        process.join()
    return [found[0], found[1]]
