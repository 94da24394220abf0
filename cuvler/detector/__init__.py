"""The detector: detectron2's (Cascade) Mask R-CNN, trained on pseudo-masks."""

import warnings

from cuvler.extras import require_extra

require_extra("detector")
with warnings.catch_warnings():
    # fvcore calls torch.jit.script at import, which is deprecated in current torch.
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    import detectron2.modeling  # noqa: F401

# Importing the first two registers what the detector configs name.
from cuvler.detector import backbone, heads  # noqa: E402, F401
from cuvler.detector.inference import Detector, load_detector  # noqa: E402

__all__ = ["Detector", "load_detector"]
