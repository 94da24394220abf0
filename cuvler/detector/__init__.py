"""The class-agnostic detector: detectron2's (Cascade) Mask R-CNN, trained on pseudo-labels."""

import importlib.util
import warnings

from cuvler.errors import ConfigError

if importlib.util.find_spec("detectron2") is None:
    raise ConfigError(
        "the detector needs detectron2, which is not installed: pip install ./packaging/detectron2"
    )
with warnings.catch_warnings():
    # fvcore scripts its focal loss when it is imported, which current torch warns of.
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    import detectron2.modeling  # noqa: F401

# Importing the first two registers what the recipes name.
from cuvler.detector import backbone, heads  # noqa: F401
from cuvler.detector.inference import Detector, load_detector

__all__ = ["Detector", "load_detector"]
