"""What an export has written, what it left out and why, and how exact its outlines are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pycocotools import mask as coco_mask

from cuvler.coco.segmentations import Polygons, polygons_rle
from cuvler.coco.values import Size
from cuvler.masks import Rle


@dataclass
class Tally:
    """Counts of one export.

    Attributes:
        images: number of images.
        records: number of masks or boxes written.
        left_out: number of those that the format has no place for, by reason.
        measured: number of masks of which the outline was measured.
        iou_sum: sum of their IoU with their outlines.
        worst: the smallest IoU.
    """

    images: int = 0
    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    measured: int = 0
    iou_sum: float = 0.0
    worst: float = 1.0

    def measure(self, rle: Rle, outlines: Polygons, size: Size) -> None:
        """Compare a mask with its outlines as pycocotools fills them."""
        filled = polygons_rle(outlines, size)
        iou = float(coco_mask.iou([filled], [rle], [0])[0, 0])
        self.measured += 1
        self.iou_sum += iou
        self.worst = min(self.worst, iou)

    def lines(self) -> Iterator[str]:
        """Yield what is worth saying, a line each."""
        yield f"{self.images} images, {self.records} objects"
        if self.measured:
            mean = self.iou_sum / self.measured
            yield (
                f"IoU of {self.measured} outlines with their masks: mean {mean:.4f}, "
                f"smallest {self.worst:.4f}"
            )
        for reason, count in sorted(self.left_out.items()):
            yield f"left out: {count} {reason}"
