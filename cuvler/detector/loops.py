"""detectron2's training iterations, which say what they were working on when they fail."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import Tensor
from torch.utils.data import DataLoader

from cuvler.detector.data import Batch


class RememberingLoader:
    """An iterable of batches that remembers which images the last one had."""

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self.loader = loader
        self.names: list[str] = []

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            self.names = [image["file_name"] for image in batch]
            yield batch


class _ChecksLosses:
    """Looks at a process's losses before detectron2 averages them over the processes.

    So it is the process that had the images that stops, and can name them.
    """

    def _write_metrics(self, loss_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        # All at once: on a GPU every single look would wait for it.
        values = torch.stack([loss.detach() for loss in loss_dict.values()]).tolist()
        broken = [n for n, v in zip(loss_dict, values, strict=True) if not math.isfinite(v)]
        if broken:
            raise FloatingPointError(f"{', '.join(broken)} became infinite or NaN.")
        super()._write_metrics(loss_dict, *args, **kwargs)  # type: ignore[misc]


class Loop(_ChecksLosses, SimpleTrainer):  # type: ignore[misc]
    """One iteration after another in full precision."""


class MixedPrecisionLoop(_ChecksLosses, AMPTrainer):  # type: ignore[misc]
    """One iteration after another in mixed precision."""
