"""Train a detector with detectron2's trainer, hooks and writers."""

import hashlib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.utils.data import DataLoader

from cuvler.detector.checkpoints import MODEL, SAFE_MODEL, load_state, load_weights
from cuvler.detector.config import build_detector, check_image_format, use_plain_batch_norm
from cuvler.detector.data import Batch, training_loader
from cuvler.detector.hooks import (
    CHECKPOINT,
    Checkpoints,
    SeedEachStep,
    Writers,
    one_report_of_errors,
)
from cuvler.detector.loops import ADVICE, GuardedModel, Loop, TrainingDivergedError, finite_weights
from cuvler.detector.model_card import CARD, record_training, short_path
from cuvler.detector.processes import Place, run_processes
from cuvler.detector.sample_sheet import draw_samples
from cuvler.detector.scoring import Scorer, Scores
from cuvler.detector.solver import build_optimizer, is_new_predictor, is_predictor
from cuvler.detector.training_annotations import delete_shared_annotations, read_shared_annotations
from cuvler.detector.training_file import Records
from cuvler.devices import check_gpus, gpu_in_use
from cuvler.download.digests import file_sha256, record_sha256
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath, atomic_path, full_disk_named
from cuvler.loading import noticing_dead_loaders
from cuvler.logs import configure

logger = logging.getLogger(__name__)


def train_detector(
    cfg: CfgNode,
    annotations: StrPath,
    image_root: StrPath,
    output: StrPath,
    *,
    num_gpus: int,
    seed: int = 0,
    place: Place | None = None,
    evaluate: tuple[StrPath, StrPath] | None = None,
) -> None:
    """Train a detector; write its weights, config, model card, metrics and TensorBoard events.

    ``model_final.pth``, the weights, is written last; ``model_final.safetensors`` has the same
    ones. ``augmented.png`` shows the first samples after augmentation.

    During training the folder also has ``annotations.arrow``, which all processes map into memory,
    and ``checkpoint.pth``. A stopped training resumes from it if started again with the same
    settings, annotations and weights, and continues with the same batches, random numbers and, on
    a CPU, number of threads as an uninterrupted one; otherwise it starts from the beginning.

    Args:
        cfg: a detector config (:func:`cuvler.detector.config.load_detector_config`);
            ``MODEL.WEIGHTS`` is the path of the initial weights, or empty for random ones.
        annotations: a COCO json; ``score`` is the soft target, 1 if missing.
        image_root: the folder that its file names start from.
        output: the folder to write to; other files in it are not modified.
        num_gpus: number of GPUs of this machine, with one process each; 0 trains on the CPU.
        seed: seed of initial weights, batches, augmentation and sampling.
        place: place of this call among those on several machines that train this detector
            together; ``output`` must then be on a shared file system.
        evaluate: a COCO json of ground truth and the folder that its file names start from: the
            detector is scored on it every ``TEST.EVAL_PERIOD`` iterations and at the end, without
            affecting training.

    Raises:
        ConfigError: the machine has fewer GPUs, the settings do not match the annotations, or
            the config is not for RGB images.
        DataError: annotations, ground truth, images or weights cannot be used.
        TrainingDivergedError: losses became infinite or NaN too often (``SOLVER.MAX_SKIPPED``,
            ``MAX_SKIPPED_IN_A_ROW``), or the weights did; the message has the last images.
    """
    check_gpus(num_gpus)
    check_image_format(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = os.fspath(output)
    cfg.SEED = seed
    threads = torch.get_num_threads()
    try:
        run_processes(
            _train_process, num_gpus, place or Place(), (cfg, annotations, image_root, evaluate)
        )
    finally:
        torch.set_num_threads(threads)  # A checkpoint may have changed it.


def _train_process(
    cfg: CfgNode,
    annotations: StrPath,
    image_root: StrPath,
    evaluate: tuple[StrPath, StrPath] | None,
) -> None:
    """Train in one process: the only one on a CPU, otherwise one per GPU."""
    if comm.get_world_size() > 1:
        # Started processes do not inherit the parent's logging, and torchrun has its own.
        configure()
        level = logging.INFO if comm.is_main_process() else logging.ERROR
        logging.getLogger().setLevel(level)
    records = read_shared_annotations(
        annotations,
        image_root,
        class_agnostic=cfg.DATASETS.CLASS_AGNOSTIC,
        keep_empty=not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        folder=cfg.OUTPUT_DIR,
    )
    _set_classes(cfg, records)
    cfg.freeze()
    scorer = Scorer(cfg, *evaluate) if evaluate else None
    trainer = Trainer(cfg, records, fingerprint(cfg, records.origin["sha256"]), scorer)
    if comm.is_main_process():
        record_training(cfg.OUTPUT_DIR, annotations, records, cfg.MODEL.WEIGHTS)
    logger.info(
        "training on %d images, iterations %d to %d, batch size %d",
        len(records),
        trainer.start_iter,
        trainer.max_iter,
        cfg.SOLVER.IMS_PER_BATCH,
    )
    with warnings.catch_warnings():
        # Mixed precision skips optimizer steps with overflowing gradients, such as the first ones;
        # the schedule counts these iterations too.
        warnings.filterwarnings("ignore", message="Detected call of .lr_scheduler.step")
        with full_disk_named(trainer.folder), noticing_dead_loaders(), one_report_of_errors():
            trainer.train(trainer.start_iter, trainer.max_iter)
    # From here on no process reads records: on another machine, the file's deletion would end it.
    comm.synchronize()
    if comm.is_main_process():
        delete_shared_annotations(cfg.OUTPUT_DIR)


def _set_classes(cfg: CfgNode, records: Records) -> None:
    if cfg.DATASETS.CLASS_AGNOSTIC and cfg.MODEL.ROI_HEADS.NUM_CLASSES != 1:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES: {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, but the detector is "
            "class-agnostic; set it to 1, or DATASETS.CLASS_AGNOSTIC to False"
        )
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(records.categories)
    ids, names = zip(*records.categories, strict=True)
    cfg.DATASETS.CATEGORY_IDS, cfg.DATASETS.CATEGORY_NAMES = ids, names


def fingerprint(cfg: CfgNode, annotations_sha256: str) -> str:
    """Return the SHA-256 of all that determines a training: settings, annotations, weights.

    Raises:
        DataError: the initial weights are missing or cannot be read.
    """
    settings = cfg.clone()
    settings.defrost()
    # Excluded from the fingerprint: may change without invalidating a checkpoint. The content of
    # the weights counts, not their path. The number of GPUs, which decides on SyncBN, may change.
    use_plain_batch_norm(settings)
    settings.OUTPUT_DIR = settings.MODEL.WEIGHTS = ""
    settings.DATALOADER.NUM_WORKERS = settings.SOLVER.CHECKPOINT_PERIOD = 0
    settings.TEST.EVAL_PERIOD = 0
    settings.SOLVER.MAX_SKIPPED = settings.SOLVER.MAX_SKIPPED_IN_A_ROW = 0
    digests = [annotations_sha256]
    if cfg.MODEL.WEIGHTS:
        digests.append(file_sha256(cfg.MODEL.WEIGHTS))
    return hashlib.sha256("\n".join([settings.dump(), *digests]).encode()).hexdigest()


class Trainer(TrainerBase):  # type: ignore[misc]
    """detectron2's training loop over :func:`cuvler.detector.data.training_loader`.

    Attributes:
        scored_on: the ground truth that the model is scored on while it trains, if any.
        start_iter: number of iterations done before, 0 unless resumed.
        max_iter: total number of iterations.
    """

    def __init__(
        self, cfg: CfgNode, records: Records, run: str, scorer: Scorer | None = None
    ) -> None:
        """Build model, optimizer and loader; load the checkpoint or the initial weights.

        Args:
            cfg: frozen, with ``OUTPUT_DIR`` and ``SEED`` set.
            records: of the training images.
            run: :func:`fingerprint`; the checkpoint of a different run is ignored.
            scorer: scores the model during training, every ``TEST.EVAL_PERIOD`` iterations.
        """
        super().__init__()
        self.scored_on = short_path(scorer.ground_truth) if scorer else ""
        self.cfg = cfg
        self.run = run
        self.folder = Path(cfg.OUTPUT_DIR)
        self.max_iter = cfg.SOLVER.MAX_ITER
        checkpoint = self._find_checkpoint()
        self.start_iter = checkpoint["trainer"]["iteration"] + 1 if checkpoint else 0
        if len(set(comm.all_gather(self.start_iter))) > 1:
            raise DataError(
                f"{self.folder / CHECKPOINT}: processes see different checkpoints; the output "
                "folder must be on a file system shared by all machines"
            )

        torch.manual_seed(cfg.SEED)
        model = build_detector(cfg)
        if checkpoint:
            model.load_state_dict(checkpoint["model"])
        elif cfg.MODEL.WEIGHTS:
            _load_initial(model, cfg)
        optimizer = build_optimizer(cfg, model)
        device_ids = [gpu_in_use()] if cfg.MODEL.DEVICE == "cuda" else None
        self.loop = Loop(
            create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids),
            self._loader(records, cfg, self.start_iter, self.max_iter),
            optimizer,
            cfg,
        )
        self.model = model
        self.optimizer = optimizer
        self.scheduler = build_lr_scheduler(cfg, optimizer)
        self.register_hooks(self._build_hooks(records, scorer))
        if checkpoint:
            self.load_state_dict(checkpoint["trainer"])
        if comm.is_main_process():
            self._prepare_folder()
            if self.start_iter == 0:
                self._draw_first_batch(records)

    def _find_checkpoint(self) -> dict[str, Any] | None:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return None
        checkpoint = load_state(path, ("run", "model", "trainer"))
        if checkpoint["run"] != self.run:
            logger.warning(
                "%s: other settings, annotations or weights; training starts from the beginning",
                path,
            )
            return None
        return checkpoint

    def _prepare_folder(self) -> None:
        """Write the config, and remove metrics logged after the checkpoint."""
        with atomic_path(self.folder / "config.yaml") as temporary:
            temporary.write_text(self.cfg.dump(), encoding="utf-8")
        record_sha256(self.folder / "config.yaml", file_sha256(self.folder / "config.yaml"))
        metrics = self.folder / "metrics.json"
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        with atomic_path(metrics) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines if self._is_before_start(line))
        if self.start_iter == 0:
            # From a previous training, with another config.
            for name in (MODEL, SAFE_MODEL, CARD):
                (self.folder / name).unlink(missing_ok=True)
            for events in self.folder.glob("events.out.tfevents.*"):
                events.unlink()

    def _draw_first_batch(self, records: Records) -> None:
        batch = next(iter(self._loader(records, _without_workers(self.cfg), 0)))
        with atomic_path(self.folder / "augmented.png") as temporary:
            draw_samples(batch).save(temporary, format="PNG")

    def _is_before_start(self, line: str) -> bool:
        try:
            return bool(json.loads(line)["iteration"] < self.start_iter)
        except ValueError:
            return False  # truncated when the training was killed

    def _loader(
        self, records: Records, cfg: CfgNode, start: int, stop: int | None = None
    ) -> DataLoader[Batch]:
        return training_loader(
            records,
            cfg,
            seed=cfg.SEED,
            start=start,
            stop=stop,
            rank=comm.get_rank(),
            world=comm.get_world_size(),
        )

    def _build_hooks(self, records: Records, scorer: Scorer | None) -> list[HookBase]:
        cfg = self.cfg
        found: list[HookBase] = [SeedEachStep(cfg.SEED), hooks.IterationTimer()]
        found.append(hooks.LRScheduler())
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            # The next batches, without copy-paste, which is for training only.
            unpasted = _without_workers(cfg)
            unpasted.INPUT.COPY_PASTE.ENABLED = False
            loader = self._loader(records, unpasted, self.max_iter)
            guarded = GuardedModel(self.model)
            found.append(hooks.PreciseBN(0, guarded, loader, cfg.TEST.PRECISE_BN.NUM_ITER))
        scored = cfg.TEST.EVAL_PERIOD if scorer else 0
        if scorer:
            found.append(Scores(scorer, scored))
        if comm.is_main_process():
            found.append(Writers(period=20, scored=scored))
            # Last: a written model means that everything else is written.
            found.append(Checkpoints(cfg.SOLVER.CHECKPOINT_PERIOD, scored=scored))
        return found

    def run_step(self) -> None:
        """Run one iteration.

        Raises:
            TrainingDivergedError: too many batches were skipped, or the weights of the last
                iteration are infinite or NaN.
        """
        self.loop.iter = self.iter
        self.loop.run_step()
        if self.iter + 1 == self.max_iter and not finite_weights(self.model):
            raise TrainingDivergedError(
                f"iteration {self.iter}: the weights became infinite or NaN. {ADVICE}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint in addition to the model."""
        state: dict[str, Any] = super().state_dict()
        state["loop"] = self.loop.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self.loop.load_state_dict(state_dict["loop"])


def _without_workers(cfg: CfgNode) -> CfgNode:
    """Return a config whose loader runs in this process."""
    own = cfg.clone()
    own.defrost()
    own.DATALOADER.NUM_WORKERS = 0
    return own


def _load_initial(model: nn.Module, cfg: CfgNode) -> None:
    path = cfg.MODEL.WEIGHTS
    skip = None
    if cfg.MODEL.NEW_PREDICTORS:
        agnostic = cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
        skip = is_new_predictor if agnostic else is_predictor
    loaded = load_weights(model, path, skip=skip, unpickle_sha256=cfg.MODEL.UNPICKLE_SHA256)
    random = [*loaded.missing, *loaded.mismatched]
    logger.info(
        "initial weights from %s; %d parameters are initialized randomly", path, len(random)
    )
    if random:
        logger.info(
            "initialized randomly: %s%s", ", ".join(random[:3]), ", ..." if len(random) > 3 else ""
        )
    if loaded.unexpected:
        logger.warning("%s: ignored parameters: %s", path, ", ".join(loaded.unexpected[:5]))
