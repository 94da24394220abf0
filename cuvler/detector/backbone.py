"""A narrow ResNet-18-FPN for training on a CPU."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_narrow_resnet18_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet-18-FPN of configurable width.

    The stages have 1, 2, 4 and 8 times ``MODEL.RESNETS.RES2_OUT_CHANNELS`` channels; detectron2's
    own ResNet-18 requires 64. He et al., CVPR 2016.
    """
    norm = cfg.MODEL.RESNETS.NORM
    width = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
    stem = BasicStem(input_shape.channels, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, norm)
    stages = []
    in_channels = cfg.MODEL.RESNETS.STEM_OUT_CHANNELS
    for index in range(4):
        out_channels = width * 2**index
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks=2,
                stride_per_block=[1 if index == 0 else 2, 1],
                in_channels=in_channels,
                out_channels=out_channels,
                norm=norm,
            )
        )
        in_channels = out_channels
    bottom_up = ResNet(stem, stages, out_features=cfg.MODEL.RESNETS.OUT_FEATURES)
    return FPN(
        bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
    )
