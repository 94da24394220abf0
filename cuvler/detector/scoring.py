"""Score a detector on validation ground truth while it trains."""

import logging
import shutil
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, nn

from cuvler.detector.inference import Detector
from cuvler.errors import ConfigError, DataError
from cuvler.evaluation import METRICS, evaluate_all
from cuvler.evaluation.coco_files import read_ground_truth
from cuvler.files import StrPath
from cuvler.listing import ListedImage
from cuvler.predictions import join_parts, predict_images, read_images, split_images

logger = logging.getLogger(__name__)

_FOLDER = ".scores"


def is_due(done: int, period: int, last: int) -> bool:
    """Return whether an event is due after ``done`` of ``last`` iterations; period 0 is never."""
    return period > 0 and (done % period == 0 or done == last)


class Scorer:
    """Predicts the images of a ground-truth file with a model in training, and scores them.

    The images are split among the processes. Predictions are written to files, so that memory does
    not grow with the dataset.
    """

    def __init__(
        self,
        cfg: CfgNode,
        ground_truth: StrPath,
        image_root: StrPath,
    ) -> None:
        """Check the files, so that errors appear before training and not hours later.

        Args:
            cfg: config of the training; ``DATASETS.CLASS_AGNOSTIC`` applies to the scores too.
            ground_truth: a COCO json.
            image_root: the folder that its file names start from.

        Raises:
            ConfigError: ``TEST.EVAL_PERIOD`` is 0.
            DataError: the ground truth has no image, no annotations or lacks classes of the
                detector, or an image is missing.
        """
        if cfg.TEST.EVAL_PERIOD <= 0:
            raise ConfigError(
                f"TEST.EVAL_PERIOD: {cfg.TEST.EVAL_PERIOD}, but ground truth for scoring during "
                "training is given; set the number of iterations between scores"
            )
        self.cfg = cfg
        self.ground_truth = Path(ground_truth)
        self.image_root = Path(image_root)
        # Read once, by one process.
        rows = _check(cfg, self.ground_truth, self.image_root) if comm.is_main_process() else []
        self.parts = split_images(comm.all_gather(rows)[0], comm.get_world_size())

    def score(self, model: nn.Module) -> dict[str, float]:
        """Score the model. All processes must call this together.

        Returns:
            ``bbox/AP``, ``segm/AP50`` ..., in percent, in the main process; empty in the others.
        """
        folder = Path(self.cfg.OUTPUT_DIR) / _FOLDER
        if comm.is_main_process():
            shutil.rmtree(folder, ignore_errors=True)  # left by a killed training
            folder.mkdir(parents=True)
        comm.synchronize()
        self._predict(model, folder)
        comm.synchronize()
        scores = {}
        if comm.is_main_process():
            scores = self._evaluate(folder)
            shutil.rmtree(folder)
        comm.synchronize()
        return scores

    def _predict(self, model: nn.Module, folder: Path) -> None:
        world, rank = comm.get_world_size(), comm.get_rank()
        if world > 1:
            # Plain batch norm has different statistics in each process. Those of the first process
            # are saved with the detector; training does not use them.
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)
        detector = Detector.of_model(self.cfg, model.eval())
        # No progress: `cuvler status` would read it as the training's.
        predict_images(
            detector,
            self.parts[rank],
            self.image_root,
            folder,
            rank,
            batch_size=self.cfg.SOLVER.IMS_PER_BATCH // world,
            workers=self.cfg.DATALOADER.NUM_WORKERS,
            show=False,
        )
        model.train()

    def _evaluate(self, folder: Path) -> dict[str, float]:
        results = folder / "results.json"
        join_parts(folder, len(self.parts), self.image_root, results, max_failed=1.0)
        scores: dict[str, Any] = evaluate_all(
            self.ground_truth,
            results,
            class_agnostic=self.cfg.DATASETS.CLASS_AGNOSTIC,
            folder=folder,
        )
        return {
            f"{iou_type}/{metric}": scores[iou_type][metric]
            for iou_type in ("bbox", "segm")
            for metric in METRICS
            if scores.get(iou_type, {}).get(metric) is not None
        }


def _check(cfg: CfgNode, ground_truth: Path, image_root: Path) -> list[ListedImage]:
    truth = read_ground_truth(ground_truth, ())
    unknown = set(cfg.DATASETS.CATEGORY_IDS) - set(truth.category_ids)
    if unknown and not cfg.DATASETS.CLASS_AGNOSTIC:
        raise DataError(
            f"{ground_truth}: lacks the categories {sorted(unknown)[:5]} of the detector; ground "
            "truth for scoring during training must have them"
        )
    rows = read_images(ground_truth)
    if not truth.records:
        raise DataError(f"{ground_truth}: has no annotations; scoring during training needs some")
    first = image_root / rows[0].file_name
    if not first.is_file():
        raise DataError(
            f"{first}: no such file; it is listed in {ground_truth}, for scoring during training"
        )
    return rows


class Scores(HookBase):  # type: ignore[misc]
    """Scores the model in training periodically and at the end."""

    def __init__(self, scorer: Scorer, period: int) -> None:
        self.scorer = scorer
        self.period = period

    def after_step(self) -> None:
        """Score the model if due."""
        if not is_due(self.trainer.iter + 1, self.period, self.trainer.max_iter):
            return
        scores = self.scorer.score(self.trainer.model)
        self.trainer.storage.put_scalars(**scores, smoothing_hint=False)
        if scores:
            shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
            logger.info("scores after iteration %d: %s", self.trainer.iter, shown)
