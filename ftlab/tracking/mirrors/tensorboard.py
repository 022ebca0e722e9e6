"""TensorBoard: event files in a folder, which `tensorboard --logdir` shows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Any

from ftlab.tracking.mirrors.base import Mirror, MirroredRun, Status


class TensorBoard(Mirror):
    """Curves as scalars, in float32 as TensorBoard keeps them; settings and the end as hyperparameters.

    A run is the folder `STUDY/CELL (CONFIG)/NAME`; of several attempts at it the last one stays.
    https://github.com/tensorflow/tensorboard
    """

    library = "tensorboard"
    install = 'pip install "ftlab[tensorboard]"'

    def begin(self, run: MirroredRun) -> None:
        from tensorboard.plugins.hparams import plugin_data_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        place = self.own_folder() / run.study / f"{run.cell} ({run.config[:8]})" / run.name
        shutil.rmtree(place, ignore_errors=True)
        self._writer = EventFileWriter(str(place))
        start = plugin_data_pb2.SessionStartInfo(group_name=run.token, start_time_secs=time.time())
        for name, text in run.params.items():
            try:
                start.hparams[name].number_value = float(text)
            except ValueError:
                start.hparams[name].string_value = text
        self._session(session_start_info=start)

    def metrics(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(Summary(value=[Summary.Value(tag=name, simple_value=value)
                                 for name, value in values.items()]), step, milliseconds / 1000)
        self._writer.flush()  # a page that is open follows, and a kill costs nothing

    def end(self, status: Status, final: Mapping[str, float]) -> None:
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

        self.metrics(final, 0, int(time.time() * 1000))
        ended = api_pb2.STATUS_SUCCESS if status == "FINISHED" else api_pb2.STATUS_FAILURE
        self._session(session_end_info=plugin_data_pb2.SessionEndInfo(
            status=ended, end_time_secs=time.time()))
        self._writer.close()

    def _session(self, **said: Any) -> None:
        """Tell the page of hyperparameters; TensorBoard's own functions for it need TensorFlow."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        content = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **said)
        data = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME,
                                          content=content.SerializeToString())
        self._add(Summary(value=[Summary.Value(
            tag="_hparams_/" + next(iter(said)), metadata=SummaryMetadata(plugin_data=data))]))

    def _add(self, summary: Any, step: int = 0, seconds: float | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(summary=summary, step=step,
                                     wall_time=time.time() if seconds is None else seconds))
