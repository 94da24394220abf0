"""A trained detector as a callable on images."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cuvler.detector.checkpoints import MODEL, SAFE_MODEL, load_trained
from cuvler.detector.config import (
    base_config,
    build_detector,
    check_image_format,
    load_detector_config,
    merge_file,
    use_plain_batch_norm,
)
from cuvler.detector.data import resized_shape
from cuvler.devices import find_device
from cuvler.download.digests import file_sha256, recorded_sha256
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath
from cuvler.images import Size, open_resized

logger = logging.getLogger(__name__)

_BILINEAR = Image.Resampling.BILINEAR


def prepare_image(image: Image.Image, sides: tuple[int, int] | None) -> dict[str, Any]:
    """Convert an image to a detectron2 model's input: (3, H, W) uint8 and the original size.

    Args:
        image: of any size.
        sides: shortest and longest side to resize to, see
            :func:`cuvler.detector.data.resized_shape`; ``None`` does not resize.
    """
    return _model_input(
        image.convert("RGB").resize(_input_size(image.size, sides), _BILINEAR), image.size
    )


def open_input(
    path: StrPath, sides: tuple[int, int] | None, size: Size | None = None
) -> dict[str, Any]:
    """Open an image as a detectron2 model's input; large JPEGs are not decoded at their full size.

    Args:
        path: the image.
        sides: see :func:`prepare_image`.
        size: see :func:`cuvler.images.open_image`.

    Raises:
        ImageError, OSError: see :func:`cuvler.images.open_image`.
    """
    return _model_input(*open_resized(path, partial(_input_size, sides=sides), _BILINEAR, size))


def _input_size(size: Size, sides: tuple[int, int] | None) -> Size:
    if sides is None:
        return size
    height, width = resized_shape(size[1], size[0], *sides)
    return width, height


def _model_input(image: Image.Image, original: Size) -> dict[str, Any]:
    pixels: NDArray[np.uint8] = np.ascontiguousarray(np.array(image).transpose(2, 0, 1))
    width, height = original
    return {"image": torch.from_numpy(pixels), "height": height, "width": width}


class Detector:
    """A detectron2 model for inference on images of any size.

    Attributes:
        model: the detectron2 model.
        categories: (id, name) in annotation files of the predicted classes 0, 1, ...
        input_sides: ``sides`` of :func:`prepare_image` for :meth:`detect`.
    """

    def __init__(self, cfg: CfgNode, weights: StrPath, *, unpickle_sha256: str = "") -> None:
        """Build the config's model and load its trained weights.

        Args:
            cfg: with ``TEST.AUG.ENABLED``, detectron2's test-time augmentation averages the
                predictions over the sizes of ``TEST.AUG``, with and without flipping.
            weights: see :func:`load_detector`.
            unpickle_sha256: see :func:`load_detector`.

        Raises:
            DataError: the weights are missing or do not match the model.
            ConfigError: the config does not name all classes, or is not for RGB images.
        """
        check_image_format(cfg)
        model = build_detector(cfg).eval()
        load_trained(model, weights, unpickle_sha256=unpickle_sha256)
        self._use(cfg, model)

    @classmethod
    def of_model(cls, cfg: CfgNode, model: nn.Module) -> "Detector":
        """Wrap a loaded model, such as one in training; the caller sets evaluation mode."""
        detector = cls.__new__(cls)
        detector._use(cfg, model)
        return detector

    def _use(self, cfg: CfgNode, model: nn.Module) -> None:
        self.model: Any = model
        self.categories = _categories(cfg)
        self.input_sides: tuple[int, int] | None = None
        if cfg.TEST.AUG.ENABLED:
            # Resizes the image itself.
            self.model = GeneralizedRCNNWithTTA(cfg, self.model)
        else:
            self.input_sides = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)

    def __call__(self, image: Image.Image) -> Instances:
        """Detect the objects of one RGB image.

        Returns:
            Instances on the CPU, best first, in pixels of the image: ``pred_boxes`` (x0 y0 x1 y1),
            ``scores``, ``pred_classes`` and ``pred_masks`` (N, H, W) bool.
        """
        return pasted(self.detect([prepare_image(image, self.input_sides)])[0])

    @torch.inference_mode()
    def detect(self, inputs: Sequence[dict[str, Any]]) -> list[Instances]:
        """Run on prepared images, as one batch; see :meth:`__call__`.

        Masks are not pasted into the images, which takes 1.2 GB for 100 masks of 12 megapixels:
        ``pred_masks`` are detectron2's ``ROIMasks``, (N, S, S) probabilities within the boxes; see
        :func:`pasted`. Only with test-time augmentation, which runs image by image whatever the
        batch, they are as in :meth:`__call__`.
        """
        if self.input_sides is None:
            return [output["instances"].to("cpu") for output in self.model(list(inputs))]
        outputs = self.model.inference(list(inputs), do_postprocess=False)
        return [
            _at_image_size(output.to("cpu"), one["height"], one["width"])
            for output, one in zip(outputs, inputs, strict=True)
        ]


def _at_image_size(found: Instances, height: int, width: int) -> Instances:
    """Scale the boxes of a model's output; empty ones are dropped."""
    # Under another name detectron2 does not paste the masks.
    found.roi_masks = ROIMasks(found.pred_masks[:, 0])
    found.remove("pred_masks")
    scaled = detector_postprocess(found, height, width)
    scaled.pred_masks = scaled.roi_masks
    scaled.remove("roi_masks")
    return scaled


def pasted(found: Instances) -> Instances:
    """Return instances with ``pred_masks`` (N, H, W) bool of those of :meth:`Detector.detect`."""
    if isinstance(found.pred_masks, torch.Tensor):
        return found
    height, width = found.image_size
    whole = Instances(found.image_size, **found.get_fields())
    whole.pred_masks = found.pred_masks.to_bitmasks(found.pred_boxes, height, width).tensor
    return whole


def _categories(cfg: CfgNode) -> tuple[tuple[int, str], ...]:
    ids, names = cfg.DATASETS.CATEGORY_IDS, cfg.DATASETS.CATEGORY_NAMES
    if not len(ids) == len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"DATASETS.CATEGORY_IDS and CATEGORY_NAMES: {len(ids)} and {len(names)} categories for "
            f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES} classes (MODEL.ROI_HEADS.NUM_CLASSES); name all"
        )
    return tuple(zip(ids, names, strict=True))


def load_detector(
    detector: StrPath,
    *,
    device: str = "auto",
    detector_config: str | None = None,
    detections_per_image: int | None = None,
    tta: bool = False,
    unpickle_sha256: str = "",
) -> Detector:
    """Load a trained detector.

    Args:
        detector: a folder that ``cuvler detector`` wrote, its ``model_final.pth`` or
            ``model_final.safetensors``, or a published checkpoint of CuVLER or CutLER.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: the GPU if there is one.
        detector_config: one of :func:`cuvler.detector.config.detector_config_names` or a .yaml,
            for weights without a ``config.yaml`` in their folder; ``votecut_cad``, the Cascade
            Mask R-CNN of the published systems, by default.
        detections_per_image: maximum number of detections; default: the config's.
        tta: test-time augmentation, at the sizes of the config's ``TEST.AUG``.
        unpickle_sha256: SHA-256 of trusted weights that need unpickling (pickles of more than
            arrays); other files are not unpickled.

    Raises:
        DataError: the weights are missing or do not match the detector.
        ConfigError: the config is invalid, or the device does not exist.
    """
    path = Path(detector)
    if path.is_dir():
        safe = (path / SAFE_MODEL).exists() and not (path / MODEL).exists()
        path = path / (SAFE_MODEL if safe else MODEL)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; a detector's folder contains {MODEL} or {SAFE_MODEL}"
        )
    saved = path.parent / "config.yaml"
    if detector_config is not None or not saved.is_file():
        source = detector_config or "votecut_cad"
        cfg = load_detector_config(source)
    else:
        source = str(saved)
        if recorded_sha256(saved) not in (None, file_sha256(saved)):
            logger.warning("%s: has changed since the training wrote it", saved)
        cfg = base_config()
        merge_file(cfg, saved)
    use_plain_batch_norm(cfg)
    cfg.MODEL.DEVICE = str(find_device(device))
    if detections_per_image is not None:
        cfg.TEST.DETECTIONS_PER_IMAGE = detections_per_image
    cfg.TEST.AUG.ENABLED = tta
    try:
        return Detector(cfg, path, unpickle_sha256=unpickle_sha256)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
