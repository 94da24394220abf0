"""Training hooks: seeds, checkpoints and metrics; one report of errors."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter

from cuvler.detector.checkpoints import (
    MODEL,
    SAFE_MODEL,
    save_model,
    save_safetensors,
    save_state,
)
from cuvler.detector.model_card import latest_scores, write_card
from cuvler.detector.scoring import is_due
from cuvler.devices import seed_gpus

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"


class SeedEachStep(HookBase):  # type: ignore[misc]
    """Seeds every iteration, so that a resumed training draws the same random numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        """Seed from the run's seed, the iteration and the rank."""
        words = [self.seed, self.trainer.iter, comm.get_rank()]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        # torch.manual_seed visits every kind of device, which takes milliseconds.
        torch.default_generator.manual_seed(seed)
        seed_gpus(seed)


class Checkpoints(HookBase):  # type: ignore[misc]
    """Saves a checkpoint periodically, and replaces it by the model at the end.

    Also saves one after each scoring (every ``scored`` iterations), so that a resumed training
    does not score again.
    """

    def __init__(self, period: int, scored: int = 0) -> None:
        self.period = period
        self.scored = scored

    def after_step(self) -> None:
        """Save the checkpoint or the model if due."""
        done = self.trainer.iter + 1
        path = self.trainer.folder / CHECKPOINT
        if done == self.trainer.max_iter:
            self._save_detector()
            path.unlink(missing_ok=True)
        elif any(is_due(done, period, done + 1) for period in (self.period, self.scored)):
            state = {
                "model": self.trainer.model.state_dict(),
                "trainer": self.trainer.state_dict(),
                "run": self.trainer.run,
            }
            save_state(state, path)
            logger.info("checkpoint after iteration %d", self.trainer.iter)

    def _save_detector(self) -> None:
        """Write what a trained detector's folder has, ``model_final.pth`` last."""
        folder = self.trainer.folder
        save_safetensors(self.trainer.model, folder / SAFE_MODEL)
        write_card(folder, latest_scores(self.trainer.storage.latest(), self.trainer.scored_on))
        save_model(self.trainer.model, folder / MODEL)


class Writers(PeriodicWriter):  # type: ignore[misc]
    """Opens detectron2's writers when training starts, after the folder is prepared.

    Also writes after each scoring (every ``scored`` iterations), so that the metrics before a
    checkpoint are in the file.
    """

    def __init__(self, period: int, scored: int = 0) -> None:
        super().__init__([], period)
        self.scored = scored

    def after_step(self) -> None:
        """Write the metrics if due."""
        if is_due(self.trainer.iter + 1, self.scored, self.trainer.max_iter):
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()

    def after_train(self) -> None:
        """Write the last metrics, unless the training failed, and close the writers."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()
            return
        for writer in self._writers:
            writer.close()

    def before_train(self) -> None:
        """Open the writers."""
        folder = self.trainer.folder
        self._writers = [
            CommonMetricPrinter(self.trainer.max_iter),
            JSONWriter(os.fspath(folder / "metrics.json")),
            TensorboardXWriter(os.fspath(folder), purge_step=self.trainer.start_iter),
        ]


@contextmanager
def one_report_of_errors() -> Iterator[None]:
    """Leave errors of the training to the caller; they would be shown several times.

    detectron2 logs every error with its traceback, and the thread in which TensorBoard writes
    prints that of a full disk, which it raises in the main thread too.
    """
    log = logging.getLogger("detectron2.engine.train_loop")
    hook = threading.excepthook

    def without_traceback(record: logging.LogRecord) -> bool:
        return record.exc_info is None

    def without_full_disk(error: threading.ExceptHookArgs) -> None:
        if not isinstance(error.exc_value, OSError):
            hook(error)

    log.addFilter(without_traceback)
    threading.excepthook = without_full_disk
    try:
        yield
    finally:
        log.removeFilter(without_traceback)
    # Not after an error: the thread may end later than the main one.
    threading.excepthook = hook
