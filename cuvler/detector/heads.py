"""RoI heads for training on pseudo-masks: soft targets and DropLoss.

Subclasses of detectron2's heads without new or renamed parameters, so that checkpoints of
``CascadeROIHeads`` and ``StandardROIHeads`` load unchanged. With all scores 1 and DropLoss off, the
losses equal detectron2's.

Sources: soft targets from CuVLER (Arica et al., CVPR 2024), section 3.2; DropLoss from CutLER
(Wang et al., CVPR 2023), section 3.3.
"""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.structures import Boxes, Instances, pairwise_iou
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torch.nn import functional

from cuvler.errors import ConfigError

# The boxes DropLoss compares with: all of the image, as in the paper, or the subset that the
# released models were trained with.
_GROUND_TRUTHS = ("all", "released")
_RELEASED_PROPOSALS = 100


def soft_cross_entropy(logits: Tensor, classes: Tensor, scores: Tensor) -> Tensor:
    """Compute the cross-entropy against (s, 1 - s) for foreground and (0, 1) for background.

    Args:
        logits: (R, K + 1), background last.
        classes: (R,) integers in [0, K]; K is background.
        scores: (R,) in [0, 1]; the targets s of foreground proposals, ignored for background.

    Returns:
        (R,) losses in float32 or better.
    """
    log_probabilities = functional.log_softmax(logits, dim=1)
    background = logits.shape[1] - 1
    scores = torch.where(classes == background, torch.ones_like(scores), scores)
    own = log_probabilities.gather(1, classes[:, None])[:, 0]
    return -(scores * own + (1 - scores) * log_probabilities[:, background])


def overlaps_any(boxes: Tensor, ground_truth: Tensor, threshold: float) -> Tensor:
    """Return which boxes have an IoU above the threshold with any ground-truth box.

    Args:
        boxes: (R, 4), x0 y0 x1 y1 in pixels.
        ground_truth: (M, 4); M may be 0.
        threshold: IoU; DropLoss drops proposals at or below it.

    Returns:
        (R,) bool.
    """
    overlaps: Tensor = pairwise_iou(Boxes(boxes), Boxes(ground_truth)) > threshold
    return overlaps.any(dim=1)


def released_ground_truth(matched: Tensor) -> Tensor:
    """Return the boxes that DropLoss of the released models compares an image's proposals with.

    The first 100 proposals are matched with K distinct boxes, but the released training code
    compares with the boxes of the first K proposals: some repeat, and others are missing.

    Args:
        matched: (R, 4), the ground-truth box matched with each of an image's proposals.

    Returns:
        (K, 4).
    """
    distinct = torch.unique(matched[:_RELEASED_PROPOSALS], dim=0)
    return matched[: len(distinct)]


class PseudoLabelOutputLayers(FastRCNNOutputLayers):  # type: ignore[misc]
    """detectron2's box predictor with optional soft targets and DropLoss."""

    @configurable  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        soft_targets: bool,
        drop_loss: bool,
        drop_loss_iou_thresh: float,
        drop_loss_ground_truth: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_shape, **kwargs)
        self.soft_targets = soft_targets
        self.drop_loss = drop_loss
        self.drop_loss_iou_thresh = drop_loss_iou_thresh
        self.drop_loss_ground_truth = drop_loss_ground_truth
        if drop_loss_ground_truth not in _GROUND_TRUTHS:
            raise ConfigError(
                f"MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH: {drop_loss_ground_truth!r} is not "
                f"allowed; allowed: {', '.join(_GROUND_TRUTHS)}"
            )
        if soft_targets and self.box_reg_loss_type != "smooth_l1":
            raise ConfigError(
                "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE: soft targets (MODEL.ROI_HEADS."
                f"SOFT_TARGETS) work with smooth_l1 only, not {self.box_reg_loss_type}"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read the constructor's arguments from a config."""
        arguments: dict[str, Any] = super().from_config(cfg, input_shape)
        arguments["soft_targets"] = cfg.MODEL.ROI_HEADS.SOFT_TARGETS
        arguments["drop_loss"] = cfg.MODEL.ROI_HEADS.DROP_LOSS
        arguments["drop_loss_iou_thresh"] = cfg.MODEL.ROI_HEADS.DROP_LOSS_IOU_THRESH
        arguments["drop_loss_ground_truth"] = cfg.MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH
        return arguments

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """Compute ``loss_cls`` and ``loss_box_reg``, both divided by the number of proposals.

        Args:
            predictions: class logits (R, K + 1) and box deltas (R, 4) or (R, 4K).
            proposals: one ``Instances`` per image with ``proposal_boxes`` and ``gt_classes``; if
                the image has ground truth, also ``gt_boxes`` and ``gt_scores``; for DropLoss,
                also ``gt_image_boxes`` (see ``_PseudoLabels``).
        """
        losses: dict[str, Tensor] = super().losses(predictions, proposals)
        if not self.drop_loss and not self.soft_targets:
            return losses
        logits, deltas = predictions
        classes = torch.cat([p.gt_classes for p in proposals])
        scores = self._target_scores(proposals, logits)
        count = max(len(classes), 1)
        per_proposal = soft_cross_entropy(logits, classes, scores)
        if self.drop_loss:
            per_proposal = per_proposal * self._kept(predictions, proposals)
        losses["loss_cls"] = per_proposal.sum() / count * self.loss_weight.get("loss_cls", 1.0)
        if self.soft_targets:
            losses["loss_box_reg"] = (
                self._weighted_box_loss(deltas, proposals, classes, scores)
                / count
                * self.loss_weight.get("loss_box_reg", 1.0)
            )
        return losses

    def _target_scores(self, proposals: list[Instances], like: Tensor) -> Tensor:
        if not self.soft_targets:
            return torch.ones(sum(map(len, proposals)), device=like.device)
        return torch.cat(
            [
                p.gt_scores if p.has("gt_scores") else torch.ones(len(p), device=like.device)
                for p in proposals
            ]
        )

    @torch.no_grad()
    def _kept(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> Tensor:
        if self.drop_loss_ground_truth == "released":
            if not all(p.has("gt_boxes") for p in proposals):
                return torch.ones(len(predictions[0]), device=predictions[0].device)
            compared = [released_ground_truth(p.gt_boxes.tensor) for p in proposals]
        else:
            # Works for (0, M, 4) too, of an image without proposals.
            compared = [p.gt_image_boxes[:1].flatten(0, 1) for p in proposals]
        boxes = self.predict_boxes_for_gt_classes(predictions, proposals)
        kept = [
            overlaps_any(decoded, truth, self.drop_loss_iou_thresh)
            for decoded, truth, p in zip(boxes, compared, proposals, strict=True)
            if len(p)
        ]
        return torch.cat(kept) if kept else torch.ones(0, device=predictions[0].device)

    def _weighted_box_loss(
        self, deltas: Tensor, proposals: list[Instances], classes: Tensor, scores: Tensor
    ) -> Tensor:
        foreground = torch.nonzero(classes < self.num_classes)[:, 0]
        sources = torch.cat([p.proposal_boxes.tensor for p in proposals])[foreground]
        targets = torch.cat(
            [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
        )[foreground]
        if deltas.shape[1] == 4:
            predicted = deltas[foreground]
        else:
            predicted = deltas.view(-1, self.num_classes, 4)[foreground, classes[foreground]]
        losses = smooth_l1_loss(
            predicted,
            self.box2box_transform.get_deltas(sources, targets),
            self.smooth_l1_beta,
            reduction="none",
        )
        weighted: Tensor = losses * scores[foreground, None]
        return weighted.sum()


@ROI_MASK_HEAD_REGISTRY.register()
class PseudoLabelMaskHead(MaskRCNNConvUpsampleHead):  # type: ignore[misc]
    """detectron2's mask head, with each instance's loss weighted by its score."""

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, input_shape: ShapeSpec, *, soft_targets: bool, **kwargs: Any) -> None:
        super().__init__(input_shape, **kwargs)
        self.soft_targets = soft_targets

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read the constructor's arguments from a config."""
        arguments: dict[str, Any] = super().from_config(cfg, input_shape)
        arguments["soft_targets"] = cfg.MODEL.ROI_HEADS.SOFT_TARGETS
        return arguments

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """Return ``{"loss_mask": ...}`` in training, otherwise the instances with masks."""
        if not (self.training and self.soft_targets):
            return super().forward(x, instances)
        return {"loss_mask": soft_mask_loss(self.layers(x), instances) * self.loss_weight}


def soft_mask_loss(logits: Tensor, instances: list[Instances]) -> Tensor:
    """Compute the mean over instances of score times the mask's mean binary cross-entropy.

    Args:
        logits: (B, 1 or K, side, side) for the B foreground instances of all images.
        instances: one per image, with ``proposal_boxes``, ``gt_masks``, ``gt_classes`` and
            ``gt_scores``.
    """
    instances = [i for i in instances if len(i)]
    if not instances:
        return logits.sum() * 0
    side = logits.shape[-1]
    targets = torch.cat(
        [i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, side) for i in instances]
    ).to(logits.device, torch.float32)
    scores = torch.cat([i.gt_scores for i in instances])
    if logits.shape[1] == 1:
        own = logits[:, 0]
    else:
        classes = torch.cat([i.gt_classes for i in instances])
        own = logits[torch.arange(len(classes), device=logits.device), classes]
    losses = functional.binary_cross_entropy_with_logits(own, targets, reduction="none")
    return (losses.mean(dim=(1, 2)) * scores).mean()


class _PseudoLabels:
    """Adds the ground truth's scores, and all boxes of the image, to the proposals.

    ``gt_image_boxes`` (R, M, 4) repeats the image's M boxes for each of its R proposals (as a view,
    not a copy), because fields of ``Instances`` have one entry per proposal.
    """

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Match and sample like detectron2, which copies all fields, including ``gt_scores``."""
        sampled: list[Instances] = super().label_and_sample_proposals(  # type: ignore[misc]
            proposals, targets
        )
        return _with_image_boxes(sampled, targets)


def _with_image_boxes(proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
    for p, target in zip(proposals, targets, strict=True):
        p.gt_image_boxes = target.gt_boxes.tensor.expand(len(p), -1, -1)
    return proposals


@ROI_HEADS_REGISTRY.register()
class PseudoLabelStandardROIHeads(_PseudoLabels, StandardROIHeads):  # type: ignore[misc]
    """Mask R-CNN heads with soft targets and DropLoss."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        heads: dict[str, Any] = super()._init_box_head(cfg, input_shape)
        heads["box_predictor"] = PseudoLabelOutputLayers(cfg, heads["box_head"].output_shape)
        return heads


@ROI_HEADS_REGISTRY.register()
class PseudoLabelCascadeROIHeads(_PseudoLabels, CascadeROIHeads):  # type: ignore[misc]
    """Cascade Mask R-CNN heads with soft targets and DropLoss in every stage."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        heads: dict[str, Any] = super()._init_box_head(cfg, input_shape)
        heads["box_predictors"] = [
            PseudoLabelOutputLayers(
                cfg, head.output_shape, box2box_transform=predictor.box2box_transform
            )
            for head, predictor in zip(heads["box_heads"], heads["box_predictors"], strict=True)
        ]
        return heads

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        proposals = super()._match_and_label_boxes(proposals, stage, targets)
        if self.box_predictor[stage].soft_targets:
            for p, target in zip(proposals, targets, strict=True):
                # detectron2 does not return the matches; match again for the scores.
                quality = pairwise_iou(target.gt_boxes, p.proposal_boxes)
                matches, _ = self.proposal_matchers[stage](quality)
                if len(target):
                    p.gt_scores = target.gt_scores[matches]
        return _with_image_boxes(proposals, targets)
