"""Patches that make detectron2 v0.6 run as pure Python on current torch, numpy and Pillow.

Each patch states the text that it replaces and the number of occurrences. Any other number raises
an error, because the source is then not the one these patches are for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


class PatchError(Exception):
    """The source is not the one these patches are for."""


@dataclass(frozen=True)
class Patch:
    """Replace ``old``, which occurs exactly ``count`` times in ``path``, with ``new``."""

    path: str
    old: str
    new: str
    count: int = 1

    def apply(self, text: str) -> str:
        """Return the patched text.

        Raises:
            PatchError: ``old`` does not occur ``count`` times.
        """
        found = text.count(self.old)
        if found != self.count:
            raise PatchError(f"{self.path}: expected {self.count} x {self.old!r}, found {found}")
        return text.replace(self.old, self.new)


PATCHES = (
    # Pillow 10 removed LINEAR, an alias of BILINEAR.
    Patch("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    # setuptools 81 removed pkg_resources.
    Patch("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", ""),
    Patch(
        "detectron2/model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )",
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
    ),
    # The compiled COCO evaluation is missing: use pycocotools, as later versions do.
    Patch(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "try:\n"
        "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:\n"
        "    COCOeval_opt = COCOeval\n",
    ),
    Patch(
        "detectron2/evaluation/fast_eval_api.py",
        "from detectron2 import _C\n",
        "from detectron2 import _C\n"
        "from detectron2._C import COCOevalAccumulate  # ImportError without the compiled part\n",
    ),
    # numpy 2: copy=False raises if a copy is needed.
    Patch("detectron2/layers/mask_ops.py", "np.array(mask, copy=False)", "np.asarray(mask)"),
    # torch warns if the indexing is not specified.
    Patch(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
    ),
    # torch moved mixed precision out of torch.cuda.
    Patch(
        "detectron2/engine/train_loop.py",
        "from torch.cuda.amp import GradScaler\n",
        "from torch.amp import GradScaler\n",
    ),
    Patch(
        "detectron2/engine/train_loop.py",
        "from torch.cuda.amp import autocast\n",
        "from torch.amp import autocast\n",
    ),
    Patch("detectron2/engine/train_loop.py", "with autocast():", 'with autocast("cuda"):'),
)

# numpy 1.24 removed its aliases of Python types; number of occurrences per file.
NUMPY_ALIASES = {
    "detectron2/data/build.py": 2,
    "detectron2/data/datasets/pascal_voc.py": 1,
    "detectron2/evaluation/pascal_voc_evaluation.py": 2,
    "detectron2/evaluation/sem_seg_evaluation.py": 7,
    "detectron2/structures/masks.py": 3,
    "detectron2/utils/video_visualizer.py": 1,
    "detectron2/utils/visualizer.py": 3,
}
_ALIAS = re.compile(r"\bnp\.(bool|float|int|object|str)\b")

# Replaces the compiled extension: the import works, any use raises an error.
STUB_EXTENSION = '''"""Stands in for the compiled extension, which this pure-Python build lacks."""


def get_compiler_version():
    return "none (pure-Python build)"


def get_cuda_version():
    return "none (pure-Python build)"


def has_cuda():
    return False


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name} needs detectron2's compiled extension, which this pure-Python build "
        "lacks. Deformable convolutions, rotated boxes and the compiled COCO evaluation need it: "
        "install the official detectron2 from source to use them."
    )
'''


def apply_patches(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the sources, {path in the sdist: content}, patched and with the stub added.

    Raises:
        PatchError: a file is missing, or does not hold what a patch replaces.
    """
    patched = dict(sources)

    def text_of(path: str) -> str:
        if path not in patched:
            raise PatchError(f"{path}: not in the source")
        return patched[path].decode("utf-8")

    for patch in PATCHES:
        patched[patch.path] = patch.apply(text_of(patch.path)).encode("utf-8")
    for path, expected in NUMPY_ALIASES.items():
        text, found = _ALIAS.subn(r"\1", text_of(path))
        if found != expected:
            raise PatchError(f"{path}: expected {expected} removed numpy aliases, found {found}")
        patched[path] = text.encode("utf-8")
    if "detectron2/_C.py" in patched:
        raise PatchError("detectron2/_C.py: the source brings its own")
    patched["detectron2/_C.py"] = STUB_EXTENSION.encode("utf-8")
    return patched
