"""Detector configs: detectron2 configs of the published detectors, and small ones for a CPU."""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

from cuvler.detector.published_config import COMBINED, RENAMED, is_published, translate
from cuvler.errors import ConfigError

logger = logging.getLogger(__name__)

DETECTOR_CONFIGS = Path(__file__).parent / "configs"
_NORM_OWNERS = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")


def add_cuvler_config(cfg: CfgNode) -> None:
    """Add this project's keys, each off or neutral, to detectron2's defaults."""
    # Cross-entropy against the annotation's score; box and mask losses weighted by it.
    cfg.MODEL.ROI_HEADS.SOFT_TARGETS = False
    # DropLoss: no classification loss for proposals whose IoU with every annotation is at most
    # the threshold.
    cfg.MODEL.ROI_HEADS.DROP_LOSS = False
    cfg.MODEL.ROI_HEADS.DROP_LOSS_IOU_THRESH = 0.01
    # Which annotations DropLoss compares with: "all" of the image, as in CutLER's paper, or
    # "released", the smaller set that the released models were trained with.
    cfg.MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH = "all"
    # Paste instances of another image of the batch into each image.
    cfg.INPUT.COPY_PASTE = CfgNode({"ENABLED": False})
    # Share of batches with copy-paste.
    cfg.INPUT.COPY_PASTE.RATE = 1.0
    # The other image is resized to the image's height and width times a factor drawn uniformly
    # from this range, within 0 and 1.
    cfg.INPUT.COPY_PASTE.SCALE = (0.3, 1.0)
    # Paste a random number of its n instances, 1 to n - 1 (one where n is 1), or all of them.
    cfg.INPUT.COPY_PASTE.RANDOM_COUNT = True
    # Do not paste an instance that covers this share or more of an existing one.
    cfg.INPUT.COPY_PASTE.MAX_COVER = 0.5
    # Learning rate factor of the class, box and mask predictors, for fine-tuning.
    cfg.SOLVER.PREDICTOR_LR_FACTOR = 1.0
    # A batch with an infinite or NaN loss is skipped; training stops after more than this many.
    cfg.SOLVER.MAX_SKIPPED_IN_A_ROW = 10
    cfg.SOLVER.MAX_SKIPPED = 1000
    # Map every category of the annotations to "object"; otherwise each category is a class, and
    # training sets MODEL.ROI_HEADS.NUM_CLASSES to their number.
    cfg.DATASETS.CLASS_AGNOSTIC = True
    # The annotations' categories in the order of the classes; set by training.
    cfg.DATASETS.CATEGORY_IDS = (1,)
    cfg.DATASETS.CATEGORY_NAMES = ("object",)
    # SHA-256 of trusted initial weights that need unpickling (pickles of more than arrays); other
    # files are not unpickled.
    cfg.MODEL.UNPICKLE_SHA256 = ""
    # Initialize the class and mask predictors randomly even if the initial weights have them, and
    # the box predictor too unless it is class-agnostic (MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG).
    cfg.MODEL.NEW_PREDICTORS = False


def base_config() -> CfgNode:
    """Return detectron2's defaults with this project's keys."""
    cfg = get_cfg()
    add_cuvler_config(cfg)
    return cfg


def detector_config_names() -> list[str]:
    """Return the names of the detector configs in the package."""
    return sorted(path.stem for path in DETECTOR_CONFIGS.glob("*.yaml"))


def load_detector_config(
    name: str | Path, *, num_gpus: int = 1, machines: int = 1, overrides: Sequence[str] = ()
) -> CfgNode:
    """Load a detector config and fit it to the machine.

    If the overrides change the batch size (``SOLVER.IMS_PER_BATCH``), learning rate, iterations,
    steps and warm-up follow the linear scaling rule (Goyal et al., 2017), except those that are
    overridden too. Mixed precision is off on the CPU. Synchronised batch norm becomes plain batch
    norm, with the same parameter names, unless there are several GPUs.

    Args:
        name: one of :func:`detector_config_names`, or the path of a detectron2 YAML config.
        num_gpus: GPUs per machine, with one process each; 0 is one process on the CPU.
        machines: number of machines that share each batch.
        overrides: detectron2's ``KEY VALUE KEY VALUE ...``.

    Raises:
        ConfigError: an unknown detector config or key, a bad value, or a batch that the GPUs
            cannot share.
    """
    cfg = base_config()
    path = (
        Path(name) if str(name).endswith((".yaml", ".yml")) else DETECTOR_CONFIGS / f"{name}.yaml"
    )
    if not path.is_file():
        known = ", ".join(detector_config_names())
        raise ConfigError(
            f"detector config {name}: unknown; choose one of {known}, or give a .yaml file"
        )
    merge_file(cfg, path)
    if len(overrides) % 2:
        raise ConfigError(f"{overrides[-1]}: overrides come in pairs, KEY VALUE KEY VALUE ...")
    batch = dict(zip(overrides[::2], overrides[1::2], strict=True)).get("SOLVER.IMS_PER_BATCH")
    if batch is not None:
        _scale_schedule(cfg, _batch_size(batch))
    with _errors_with("overrides"):
        cfg.merge_from_list(list(overrides))
    _check_copy_paste(cfg)
    _fit_to_machines(cfg, num_gpus, machines)
    return cfg


def merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a YAML config, with its ``_BASE_``, into ``cfg``.

    A config of CutLER or CuVLER is translated first (:mod:`cuvler.detector.published_config`), and
    each translated or ignored key is logged.

    Raises:
        ConfigError: an unknown key or a bad value; the message names it.
    """
    with _errors_with(path):
        # detectron2's default, allow_unsafe=True, constructs any object named in the file.
        content = CfgNode.load_yaml_with_base(str(path), allow_unsafe=False)
        if not isinstance(content, dict) or not is_published(content, cfg):
            cfg.merge_from_file(str(path), allow_unsafe=False)
            return
        content, lines = translate(content, cfg)
        for line in lines:
            logger.info("%s: %s", path, line)
        cfg.merge_from_other_cfg(CfgNode(content))


@contextmanager
def _errors_with(source: object) -> Iterator[None]:
    """Raise errors of detectron2's config as a ConfigError that names the source."""
    try:
        yield
    except yaml.constructor.ConstructorError as error:
        where = error.problem_mark or error.context_mark
        raise ConfigError(
            f"{source}: line {where.line + 1 if where else '?'}: {error.problem}; a detector "
            "config has no tags (!...)"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not YAML ({error})") from error
    except (AttributeError, RecursionError, TypeError) as error:
        raise ConfigError(
            f"{source}: not settings by section, as MODEL and SOLVER, or a _BASE_ that is no file "
            f"({error})"
        ) from error
    except (AssertionError, KeyError, ValueError) as error:
        message = str(error.args[0] if error.args else error)
        raise ConfigError(f"{source}: {message}{_hint(message)}") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"{source}: cannot read {error.filename} ({error.strerror}); a _BASE_ is relative to "
            "the file that names it"
        ) from error


def _hint(message: str) -> str:
    """Suggest a key for one that does not exist: ours for a published one, or a similar one."""
    unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", message)
    if not unknown:
        return ""
    if ours := (RENAMED | COMBINED).get(unknown[1].rpartition(".")[2]):
        return f"; it is {ours} here"
    close = difflib.get_close_matches(unknown[1], list(_keys(base_config())), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _keys(cfg: CfgNode, parent: str = "") -> Iterator[str]:
    for key, value in cfg.items():
        yield f"{parent}{key}"
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{parent}{key}.")


def _batch_size(value: str) -> int:
    if not value.isdecimal() or int(value) == 0:
        raise ConfigError(f"SOLVER.IMS_PER_BATCH: {value!r} is not a positive whole number")
    return int(value)


def _scale_schedule(cfg: CfgNode, batch: int) -> None:
    """Set the batch size; scale learning rate and schedule linearly (Goyal et al., 2017)."""
    factor = batch / cfg.SOLVER.IMS_PER_BATCH
    cfg.SOLVER.IMS_PER_BATCH = batch
    cfg.SOLVER.BASE_LR *= factor
    cfg.SOLVER.MAX_ITER = round(cfg.SOLVER.MAX_ITER / factor)
    cfg.SOLVER.WARMUP_ITERS = round(cfg.SOLVER.WARMUP_ITERS / factor)
    cfg.SOLVER.STEPS = tuple(round(step / factor) for step in cfg.SOLVER.STEPS)
    cfg.SOLVER.CHECKPOINT_PERIOD = round(cfg.SOLVER.CHECKPOINT_PERIOD / factor)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / factor)


def _fit_to_machines(cfg: CfgNode, num_gpus: int, machines: int) -> None:
    processes = max(num_gpus, 1) * machines
    cfg.MODEL.DEVICE = "cuda" if num_gpus else "cpu"
    if not num_gpus:
        cfg.SOLVER.AMP.ENABLED = False
    if not num_gpus or processes == 1:
        use_plain_batch_norm(cfg)
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH: {cfg.SOLVER.IMS_PER_BATCH} images cannot be shared "
            f"by {processes} processes; choose a multiple of {processes}"
        )


def _check_copy_paste(cfg: CfgNode) -> None:
    options = cfg.INPUT.COPY_PASTE
    if not 0 <= options.RATE <= 1:
        raise ConfigError(f"INPUT.COPY_PASTE.RATE: {options.RATE} is not a share, 0 to 1")
    scale = tuple(options.SCALE)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        raise ConfigError(
            f"INPUT.COPY_PASTE.SCALE: {scale} is not a range within 0 and 1; the pasted image must "
            "fit into the other"
        )


def check_image_format(cfg: CfgNode) -> None:
    """Check that a config is for RGB images, the only order of channels that is read.

    Raises:
        ConfigError: ``INPUT.FORMAT``, by detectron2's default BGR, is not RGB.
    """
    if cfg.INPUT.FORMAT != "RGB":
        raise ConfigError(
            f"INPUT.FORMAT: {cfg.INPUT.FORMAT}, but images are read as RGB; set it to RGB, and "
            "MODEL.PIXEL_MEAN and PIXEL_STD in that order"
        )


def build_detector(cfg: CfgNode) -> nn.Module:
    """Build a config's model.

    Raises:
        ConfigError: its settings name parts that do not exist, or that do not fit together.
    """
    try:
        model: nn.Module = build_model(cfg)
    # detectron2 raises these for a name or a value that it does not know.
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error.args[0] if error.args else error) or type(error).__name__
        raise ConfigError(f"no model can be built of these settings ({reason})") from error
    return model


def use_plain_batch_norm(cfg: CfgNode) -> None:
    """Replace synchronised batch norm, which needs several GPUs, by plain batch norm."""
    for owner in _NORM_OWNERS:
        if cfg.MODEL[owner].NORM == "SyncBN":
            cfg.MODEL[owner].NORM = "BN"
