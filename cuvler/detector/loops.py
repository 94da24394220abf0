"""Training iterations, which leave out batches whose losses are infinite or NaN."""

import logging
import math
import time
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from fvcore.nn.precise_bn import BN_MODULE_TYPES
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from cuvler.detector.data import Batch
from cuvler.errors import CuvlerError

logger = logging.getLogger(__name__)

# How many batches were skipped so far, in metrics.json and TensorBoard.
SKIPPED = "skipped_batches"
ADVICE = (
    "Lower SOLVER.BASE_LR or lengthen SOLVER.WARMUP_ITERS, and look at these images' annotations."
)


class TrainingDivergedError(CuvlerError):
    """Losses became infinite or NaN too often, or the weights did."""


class GuardedModel(nn.Module):
    """A model that gives no losses, and keeps its batch-norm statistics, where a loss is broken.

    A broken loss is infinite or NaN. Where several processes train together, a broken loss of one
    breaks the batch of all.

    Attributes:
        broken: images and losses of the last broken batch, in words.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.broken = ""
        self._norms = [module for module in model.modules() if isinstance(module, BN_MODULE_TYPES)]

    def forward(self, batch: Batch) -> dict[str, Tensor] | None:
        """Give the losses, or None and a warning in the log where one is broken."""
        buffers = [buffer for norm in self._norms for buffer in norm.buffers()]
        before = [buffer.clone() for buffer in buffers]
        losses: dict[str, Tensor] = {}
        reason = ""
        try:
            losses = self.model(batch)
        except FloatingPointError as error:
            # detectron2 raises it where predicted boxes are infinite or NaN.
            reason = str(error).partition("\n")[0]
        if self._finite_everywhere(losses):
            return losses
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        if broken := [name for name, loss in losses.items() if not math.isfinite(loss.item())]:
            reason = f"{', '.join(broken)} became infinite or NaN."
        self.broken = _gather_reasons(reason, [image["file_name"] for image in batch])
        logger.warning("%s The batch is skipped.", self.broken)
        return None

    def _finite_everywhere(self, losses: dict[str, Tensor]) -> bool:
        """Look at the losses of all processes, before their gradients are averaged."""
        device = next(self.model.parameters()).device
        finite = torch.tensor(bool(losses), device=device)
        if losses:
            # All at once: on a GPU every single look would wait for it.
            finite = torch.stack([loss.detach() for loss in losses.values()]).isfinite().all()
        if comm.get_world_size() > 1:
            finite = finite.float()
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
        return bool(finite.item())


def _gather_reasons(reason: str, images: list[str]) -> str:
    """Put together what is wrong in which images of all processes; empty reasons are none."""
    of_all = [found for found in comm.all_gather((reason, images)) if found[0]]
    reasons = " ".join(dict.fromkeys(reason for reason, _ in of_all))
    return f"images {', '.join(name for _, names in of_all for name in names)}: {reasons}"


class Loop(SimpleTrainer):  # type: ignore[misc]
    """detectron2's iteration, in full or mixed precision, over batches that can be learned from.

    A batch whose losses are infinite or NaN is skipped: it changes neither weights, nor optimizer,
    nor batch norm, nor the scale of mixed precision.

    Attributes:
        skipped: batches skipped so far, also before this training was resumed.
        skipped_in_a_row: those since the last batch that was learned from.
    """

    def __init__(
        self, model: nn.Module, loader: DataLoader[Batch], optimizer: Optimizer, cfg: CfgNode
    ) -> None:
        """Start the loader.

        Args:
            model: gives losses; on several processes, averages gradients.
            loader: gives batches without end.
            optimizer: of the model's parameters.
            cfg: gives the device, whether precision is mixed, and how many batches may be
                skipped: ``SOLVER.MAX_SKIPPED_IN_A_ROW`` and ``SOLVER.MAX_SKIPPED``.
        """
        super().__init__(GuardedModel(model), loader, optimizer)
        self.device = torch.device(cfg.MODEL.DEVICE).type
        self.mixed_precision = bool(cfg.SOLVER.AMP.ENABLED)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.mixed_precision)
        self.limits = {
            "in a row, more than SOLVER.MAX_SKIPPED_IN_A_ROW": cfg.SOLVER.MAX_SKIPPED_IN_A_ROW,
            "in all, more than SOLVER.MAX_SKIPPED": cfg.SOLVER.MAX_SKIPPED,
        }
        self.skipped = 0
        self.skipped_in_a_row = 0

    def run_step(self) -> None:
        """Learn from a batch, or skip it.

        Raises:
            TrainingDivergedError: too many were skipped, or the weights are infinite or NaN.
        """
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(self.device, enabled=self.mixed_precision):
            losses = self.model(batch)
        if losses is None:
            self._skip()
        else:
            self.skipped_in_a_row = 0
            self.optimizer.zero_grad()
            self.scaler.scale(sum(losses.values())).backward()
            self._write_metrics(losses, data_time)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        get_event_storage().put_scalar(SKIPPED, self.skipped, smoothing_hint=False)

    def _skip(self) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        logger.warning("iteration %d: %d batches skipped so far", self.iter, self.skipped)
        counts = (self.skipped_in_a_row, self.skipped)
        reasons = [
            f"{count} batches were skipped {name} ({limit})."
            for count, (name, limit) in zip(counts, self.limits.items(), strict=True)
            if count > limit
        ]
        if not finite_weights(self.model):
            reasons = ["So did the weights."]
        if reasons:
            raise TrainingDivergedError(
                f"iteration {self.iter}, {self.model.broken} {reasons[0]} {ADVICE}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint holds beside the model."""
        state: dict[str, Any] = super().state_dict()
        state["scaler"] = self.scaler.state_dict()
        state["skipped"] = [self.skipped, self.skipped_in_a_row]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        super().load_state_dict(state_dict)
        self.scaler.load_state_dict(state_dict["scaler"])
        self.skipped, self.skipped_in_a_row = state_dict["skipped"]


def finite_weights(model: nn.Module) -> bool:
    """Tell whether no parameter is infinite or NaN."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())
