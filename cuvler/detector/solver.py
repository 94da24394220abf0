"""detectron2's optimizer with a separate learning rate for the predictors."""

from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from torch import nn
from torch.optim import Optimizer

# The last layers, which have a higher learning rate in fine-tuning.
_PREDICTORS = (".cls_score.", ".bbox_pred.", "mask_head.predictor.")


def is_predictor(name: str) -> bool:
    """Return whether a parameter belongs to the class, box or mask predictor."""
    return any(part in name for part in _PREDICTORS)


def is_new_predictor(name: str) -> bool:
    """Return whether a parameter must be initialized randomly if the classes change.

    Class-agnostic box regression does not depend on the classes and is kept.
    """
    return is_predictor(name) and ".bbox_pred." not in name


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Build the config's optimizer and apply ``SOLVER.PREDICTOR_LR_FACTOR``."""
    optimizer = build_detectron2_optimizer(cfg, model)
    return predictor_learning_rate(optimizer, model, cfg.SOLVER.PREDICTOR_LR_FACTOR)


def predictor_learning_rate(optimizer: Optimizer, model: nn.Module, factor: float) -> Optimizer:
    """Multiply the learning rate of the class, box and mask predictors by ``factor``.

    Returns:
        The same optimizer, with the predictors' parameters in separate groups.
    """
    if factor == 1:
        return optimizer
    predictors = {
        id(parameter) for name, parameter in model.named_parameters() if is_predictor(name)
    }
    for group in list(optimizer.param_groups):
        own = [p for p in group["params"] if id(p) in predictors]
        if own:
            group["params"] = [p for p in group["params"] if id(p) not in predictors]
            optimizer.add_param_group({**group, "params": own, "lr": group["lr"] * factor})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
    return optimizer
