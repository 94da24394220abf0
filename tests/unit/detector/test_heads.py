import math

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from cuvler.detector.config import load_detector_config
from cuvler.detector.heads import (
    PseudoLabelOutputLayers,
    overlaps_any,
    released_ground_truth,
    soft_cross_entropy,
    soft_mask_loss,
)
from cuvler.errors import ConfigError

LN2 = math.log(2)


def predictor(
    soft_targets=False,
    drop_loss=False,
    num_classes=1,
    agnostic=True,
    drop_loss_ground_truth="all",
    **kwargs,
):
    return PseudoLabelOutputLayers(
        ShapeSpec(channels=8),
        box2box_transform=Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        num_classes=num_classes,
        cls_agnostic_bbox_reg=agnostic,
        soft_targets=soft_targets,
        drop_loss=drop_loss,
        drop_loss_iou_thresh=0.01,
        drop_loss_ground_truth=drop_loss_ground_truth,
        **kwargs,
    )


def proposals(boxes, classes, gt_boxes, scores, image_boxes=None):
    found = Instances((100, 100))
    found.proposal_boxes = Boxes(torch.tensor(boxes))
    found.gt_classes = torch.tensor(classes)
    found.gt_boxes = Boxes(torch.tensor(gt_boxes))
    found.gt_scores = torch.tensor(scores)
    image_boxes = torch.tensor(gt_boxes if image_boxes is None else image_boxes).reshape(-1, 4)
    found.gt_image_boxes = image_boxes.expand(len(boxes), -1, -1)
    return found


def random_proposals(count, num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * 50
    boxes = torch.cat([corners[:, 0], corners[:, 0] + corners[:, 1] + 1], dim=1)
    jitter = boxes + torch.rand(count, 4, generator=generator)
    classes = torch.randint(0, num_classes + 1, (count,), generator=generator)
    return proposals(boxes.tolist(), classes.tolist(), jitter.tolist(), [1.0] * count)


def test_soft_cross_entropy_by_hand():
    # log-softmax of (0, 0) is (-ln 2, -ln 2); of (ln 3, 0) it is (ln 3/4, ln 1/4).
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [math.log(3), 0.0], [math.log(3), 0.0]])
    losses = soft_cross_entropy(
        logits, torch.tensor([0, 0, 0, 1]), torch.tensor([0.3, 1.0, 0.25, 0.25])
    )
    expected = [LN2, math.log(4 / 3), 0.25 * math.log(4 / 3) + 0.75 * math.log(4), math.log(4)]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_soft_cross_entropy_is_minimal_at_the_score():
    scores = torch.full((99,), 0.37)
    p = torch.linspace(0.01, 0.99, 99)
    logits = torch.stack([p.log(), (1 - p).log()], dim=1)
    losses = soft_cross_entropy(logits, torch.zeros(99, dtype=torch.long), scores)
    assert p[losses.argmin()].item() == pytest.approx(0.37)


def test_overlap_at_the_threshold_is_dropped():
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 1.0, 1.0], [0, 0, 1, 2]]
    )
    # IoU 1, 0, exactly 0.01 and 0.02.
    assert overlaps_any(boxes, truth, 0.01).tolist() == [True, False, False, True]
    assert overlaps_any(boxes, truth[:0], 0.01).tolist() == [False] * 4


@pytest.mark.parametrize(("num_classes", "agnostic"), [(1, True), (1, False), (3, False)])
def test_losses_are_detectron2s_with_scores_of_one(num_classes, agnostic):
    torch.manual_seed(0)
    ours = predictor(soft_targets=True, num_classes=num_classes, agnostic=agnostic)
    theirs = FastRCNNOutputLayers(
        ShapeSpec(channels=8),
        box2box_transform=Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        num_classes=num_classes,
        cls_agnostic_bbox_reg=agnostic,
    )
    theirs.load_state_dict(ours.state_dict())
    images = [random_proposals(20, num_classes, seed) for seed in (1, 2)]
    predictions = ours(torch.randn(40, 8))
    with EventStorage():
        expected = theirs.losses(predictions, images)
        found = ours.losses(predictions, images)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6)


def test_soft_targets_weigh_class_and_box_losses_by_hand():
    layers = predictor(soft_targets=True)
    # The second of two proposals is background; zero deltas do not move the boxes.
    images = [
        proposals(
            [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]],
            [0, 1],
            [[1.0, 0.0, 11.0, 10.0]] * 2,
            [0.4, 0.4],
        )
    ]
    with EventStorage():
        losses = layers.losses((torch.zeros(2, 2), torch.zeros(2, 4)), images)
    assert losses["loss_cls"].item() == pytest.approx(LN2)
    # dx = 10 * 1 / 10 = 1, L1, weighted by 0.4, over 2 proposals.
    assert losses["loss_box_reg"].item() == pytest.approx(0.4 / 2)


def test_drop_loss_uses_the_decoded_box():
    layers = predictor(drop_loss=True)
    images = [
        proposals(
            [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [80.0, 80.0, 90.0, 90.0]],
            [0, 1, 1],
            [[0.0, 0.0, 10.0, 10.0]] * 3,
            [1.0] * 3,
        )
    ]
    # The third is moved by dx = dy = -80 onto the object: (x10 weights, in box sides of 10).
    deltas = torch.tensor([[0.0] * 4, [0.0] * 4, [-80.0, -80.0, 0.0, 0.0]])
    with EventStorage():
        losses = layers.losses((torch.zeros(3, 2), deltas), images)
    # The second adds no loss but counts as a proposal.
    assert losses["loss_cls"].item() == pytest.approx(2 * LN2 / 3)


def test_drop_loss_compares_with_all_objects_of_the_image():
    layers = predictor(drop_loss=True)
    # Matched with a distant object, but overlapping another one.
    images = [
        proposals(
            [[50.0, 50.0, 60.0, 60.0]],
            [1],
            [[0.0, 0.0, 10.0, 10.0]],
            [1.0],
            image_boxes=[[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 61.0, 61.0]],
        )
    ]
    with EventStorage():
        losses = layers.losses((torch.zeros(1, 2), torch.zeros(1, 4)), images)
    assert losses["loss_cls"].item() == pytest.approx(LN2)


def test_images_without_objects_add_no_class_loss_under_drop_loss():
    empty = Instances((100, 100))
    empty.proposal_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    empty.gt_classes = torch.tensor([1])
    empty.gt_image_boxes = torch.zeros(1, 0, 4)
    nothing = Instances((100, 100))
    nothing.proposal_boxes = Boxes(torch.zeros(0, 4))
    nothing.gt_classes = torch.zeros(0, dtype=torch.long)
    nothing.gt_image_boxes = torch.zeros(0, 0, 4)
    logits = torch.zeros(1, 2, requires_grad=True)
    deltas = torch.zeros(1, 4, requires_grad=True)
    for drop_loss, expected in ((True, 0.0), (False, LN2)):
        layers = predictor(soft_targets=True, drop_loss=drop_loss)
        with EventStorage():
            losses = layers.losses((logits, deltas), [empty, nothing])
        assert losses["loss_cls"].item() == pytest.approx(expected)
        assert losses["loss_box_reg"].item() == 0
        sum(losses.values()).backward()


A, B, FAR = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [50.0, 50.0, 60.0, 60.0]


def class_loss(images, **options):
    """The classification loss at zero logits and deltas."""
    count = sum(map(len, images))
    with EventStorage():
        predictions = (torch.zeros(count, 2), torch.zeros(count, 4))
        return predictor(drop_loss=True, **options).losses(predictions, images)["loss_cls"].item()


def without_objects(*boxes, stage=0):
    """Proposals of an image without ground truth; detectron2 adds boxes from stage 1 on."""
    empty = Instances((100, 100))
    empty.proposal_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    empty.gt_classes = torch.ones(len(boxes), dtype=torch.long)
    if stage:
        empty.gt_boxes = Boxes(torch.zeros(len(boxes), 4))
    empty.gt_image_boxes = torch.zeros(len(boxes), 0, 4)
    return empty


def test_released_drop_loss_compares_with_the_boxes_of_the_first_proposals():
    image = proposals(
        [A, [1.0, 0.0, 11.0, 10.0], B, FAR], [0, 0, 0, 1], [A, A, B, A], [1.0] * 4, [A, B]
    )
    assert class_loss([image]) == pytest.approx(0.519860, abs=1e-6)
    # Two boxes are distinct; the first two proposals are both matched with A.
    released = class_loss([image], drop_loss_ground_truth="released")
    assert released == pytest.approx(0.346574, abs=1e-6)


def test_released_drop_loss_is_off_if_an_image_of_the_batch_has_no_object():
    with_objects = proposals([A, FAR], [0, 1], [A, A], [1.0, 1.0])
    first = [with_objects, without_objects(FAR)]
    assert class_loss(first) == pytest.approx(LN2 / 3)
    assert class_loss(first, drop_loss_ground_truth="released") == pytest.approx(LN2)
    # Even if that image has no proposals either.
    first = [with_objects, without_objects()]
    assert class_loss(first, drop_loss_ground_truth="released") == pytest.approx(LN2)
    # Later stages of a cascade compare with an empty box: all its proposals are dropped.
    later = [with_objects, without_objects(FAR, stage=1), without_objects(stage=1)]
    assert class_loss(later, drop_loss_ground_truth="released") == pytest.approx(LN2 / 3)


def test_released_drop_loss_counts_distinct_boxes_of_the_first_hundred_proposals():
    one, two, three = ([float(x)] * 4 for x in (1, 2, 3))
    matched = torch.tensor([one, two, *[one] * 98, three])
    assert released_ground_truth(matched).tolist() == [one, two]
    assert released_ground_truth(matched[1:]).tolist() == [two, one, one]
    assert released_ground_truth(matched[:0]).tolist() == []
    # Two objects with the same box count once.
    assert released_ground_truth(torch.tensor([one, one])).tolist() == [one]


def test_unknown_ground_truths_for_drop_loss_are_refused():
    with pytest.raises(ConfigError, match=r"DROP_LOSS_GROUND_TRUTH: 'paper'.*all, released"):
        tiny_model("MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH", "paper")


def test_soft_targets_refuse_losses_that_cannot_be_weighted():
    with pytest.raises(ConfigError, match=r"BBOX_REG_LOSS_TYPE.*smooth_l1.*giou"):
        predictor(soft_targets=True, box_reg_loss_type="giou")


def mask_instances(count, scores, classes=None):
    found = Instances((40, 40))
    generator = torch.Generator().manual_seed(5)
    found.proposal_boxes = Boxes(torch.tensor([[4.0, 4.0, 32.0, 32.0]] * count).reshape(-1, 4))
    found.gt_masks = BitMasks(torch.rand(count, 40, 40, generator=generator) > 0.5)
    found.gt_classes = torch.tensor(classes or [0] * count, dtype=torch.long)
    found.gt_scores = torch.tensor(scores)
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_mask_loss_is_detectron2s_with_scores_of_one(channels):
    instances = [mask_instances(2, [1.0, 1.0], [0, 2]), mask_instances(0, [])]
    logits = torch.randn(2, channels, 14, 14)
    with EventStorage():
        expected = mask_rcnn_loss(logits, instances)
    torch.testing.assert_close(soft_mask_loss(logits, instances), expected, rtol=0, atol=1e-6)


def test_mask_loss_is_weighted_by_the_score():
    logits = torch.zeros(2, 1, 14, 14)  # cross-entropy ln 2 for any mask
    loss = soft_mask_loss(logits, [mask_instances(2, [0.5, 0.1])])
    assert loss.item() == pytest.approx(LN2 * (0.5 + 0.1) / 2)


def test_mask_loss_without_objects_is_zero_and_has_a_gradient():
    logits = torch.zeros(0, 1, 14, 14, requires_grad=True)
    loss = soft_mask_loss(logits, [mask_instances(0, [])])
    loss.backward()
    assert loss.item() == 0


def tiny_model(*overrides):
    cfg = load_detector_config("demo", num_gpus=0, overrides=overrides)
    torch.manual_seed(0)
    return build_model(cfg)


def training_input(score=0.5, objects=1):
    generator = torch.Generator().manual_seed(7)
    masks = torch.zeros(objects, 64, 64, dtype=torch.bool)
    masks[:, 10:40, 12:50] = True
    instances = Instances((64, 64))
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    instances.gt_classes = torch.zeros(objects, dtype=torch.long)
    instances.gt_scores = torch.full((objects,), score)
    image = torch.randint(0, 255, (3, 64, 64), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances}


def losses_of(model, inputs):
    model.train()
    torch.manual_seed(1)
    with EventStorage():
        return model(inputs)


@pytest.mark.parametrize("heads", ["Cascade", "Standard"])
def test_full_model_has_detectron2s_losses_and_parameters(heads):
    own = ["MODEL.ROI_HEADS.DROP_LOSS", "False"]
    ours = tiny_model("MODEL.ROI_HEADS.NAME", f"PseudoLabel{heads}ROIHeads", *own)
    theirs = tiny_model(
        "MODEL.ROI_HEADS.NAME",
        f"{heads}ROIHeads",
        "MODEL.ROI_MASK_HEAD.NAME",
        "MaskRCNNConvUpsampleHead",
        *own,
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    inputs = [training_input(score=1.0), training_input(score=1.0)]
    expected = losses_of(theirs, inputs)
    found = losses_of(ours, inputs)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads", ["Cascade", "Standard"])
def test_scores_reach_every_stage(heads):
    model = tiny_model("MODEL.ROI_HEADS.NAME", f"PseudoLabel{heads}ROIHeads")
    full = losses_of(model, [training_input(score=1.0)])
    half = losses_of(model, [training_input(score=0.5)])
    assert full["loss_mask"].item() > 0
    for name in full:
        if "box_reg" in name or "mask" in name:
            assert half[name].item() == pytest.approx(full[name].item() / 2, rel=1e-4), name


@pytest.mark.parametrize("heads", ["Cascade", "Standard"])
def test_images_without_annotations_can_be_trained_on(heads):
    model = tiny_model("MODEL.ROI_HEADS.NAME", f"PseudoLabel{heads}ROIHeads")
    losses = losses_of(model, [training_input(objects=0), training_input(objects=1)])
    sum(losses.values()).backward()
    losses = losses_of(model, [training_input(objects=0)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(loss == 0 for name, loss in losses.items() if name.startswith("loss_cls"))


@pytest.mark.parametrize(("heads", "first"), [("Cascade", "_stage0"), ("Standard", "")])
def test_released_drop_loss_in_the_full_model(heads, first):
    name = ("MODEL.ROI_HEADS.NAME", f"PseudoLabel{heads}ROIHeads")
    released = tiny_model(*name, "MODEL.ROI_HEADS.DROP_LOSS_GROUND_TRUTH", "released")
    off = tiny_model(*name, "MODEL.ROI_HEADS.DROP_LOSS", "False")
    for inputs, same in (
        ([training_input(), training_input(objects=0)], True),
        ([training_input(), training_input()], False),
    ):
        expected, found = losses_of(off, inputs), losses_of(released, inputs)
        assert (found["loss_cls" + first] == expected["loss_cls" + first]) == same
        for stage in ("_stage1", "_stage2") if first else ():
            assert found["loss_cls" + stage] < expected["loss_cls" + stage]
