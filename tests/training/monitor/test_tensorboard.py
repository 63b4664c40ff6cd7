"""TensorBoard's files are the log's numbers; without TensorBoard training goes on."""

import errno
import io
import os
import sys

import pytest
from cologen.training.monitor.log import read_log
from cologen.training.monitor.tensorboard import TensorBoard
from tiny_run import tiny_curriculum, tiny_run


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_gets_losses_usage_and_samples(tmp_path):
    pytest.importorskip("tensorboard")
    recipe = tiny_curriculum(4, validate_every=2, sample_every=4, sample_steps=1)
    from cologen.training.monitor.log import Log

    tiny_run(tmp_path, recipe, listeners=[Log(tmp_path), TensorBoard(tmp_path)]).train(only="inpaint")
    found = events(tmp_path / "tensorboard/1-inpaint")
    steps = [line for line in read_log(tmp_path / "log.jsonl") if "task" in line]
    checks = [line for line in read_log(tmp_path / "log.jsonl") if "validation" in line]
    losses = [(event.step, event.value) for event in found.Scalars("train/task")]
    assert losses == [(line["iteration"], pytest.approx(line["task"])) for line in steps]
    assert [event.value for event in found.Scalars("usage/inpaint")] == [1.0] * 4
    held = [(event.step, event.value) for event in found.Scalars("validation/inpaint")]
    assert held == [(line["iteration"], pytest.approx(line["validation"]["inpaint"]["loss"])) for line in checks]
    assert [event.step for event in found.Images("samples")] == [4]


def test_without_tensorboard_training_goes_on_with_one_sentence(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level("INFO"):
        tiny_run(tmp_path, tiny_curriculum(1), listeners=[TensorBoard(tmp_path)]).train()
    said = [record.getMessage() for record in caplog.records if "TensorBoard" in record.getMessage()]
    assert said == ["TensorBoard is not installed: training goes on without its files."]


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_folder_that_becomes_read_only_is_one_sentence(tmp_path, monkeypatch, caplog, capfd):
    """Nothing is written by a thread, whose errors nobody hears."""
    pytest.importorskip("tensorboard")
    begin = TensorBoard.on_stage_begin

    def begin_and_lose(board, trainer):
        begin(board, trainer)
        board.writer._records._writer = FullDisk()

    monkeypatch.setattr(TensorBoard, "on_stage_begin", begin_and_lose)
    tiny_run(tmp_path, tiny_curriculum(2), listeners=[TensorBoard(tmp_path)]).train(only="inpaint")
    said = [record.getMessage() for record in caplog.records if "TensorBoard" in record.getMessage()]
    assert len(said) == 1 and "TensorBoard cannot write (Read-only file system): training goes on without it" in said[0]
    assert "Traceback" not in capfd.readouterr().err
