"""A file for TensorBoard, written where it is called: what its own writer's thread cannot write, nobody hears of."""

import os
import socket
import time
from pathlib import Path
from typing import Any


class EventFile:
    """Events of one stage, one file for each part of a run."""

    def __init__(self, folder: Path, first_step: int):
        """Drops events of earlier files from `first_step` on: a kill may have left them beyond the checkpoint."""
        # its names are made when it is imported
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._make_event = Event
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("xb"))
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, summary: Any, step: int) -> None:
        """Appends one summary of torch.utils.tensorboard.summary."""
        self._write(step=step, summary=summary)

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()

    def _write(self, **values: Any) -> None:
        self._records.write(self._make_event(wall_time=time.time(), **values).SerializeToString())
