"""Training iterations that skip batches with infinite or NaN losses."""

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

# Name in metrics.json and TensorBoard of the number of batches skipped so far.
_SKIPPED = "skipped_batches"
ADVICE = (
    "Lower SOLVER.BASE_LR or lengthen SOLVER.WARMUP_ITERS, and check these images' annotations."
)


class TrainingDivergedError(CuvlerError):
    """Losses became infinite or NaN too often, or the weights became infinite or NaN."""


class GuardedModel(nn.Module):
    """A model that returns None, with unchanged batch-norm statistics, if a loss is not finite.

    With several processes, an infinite or NaN loss in one of them skips the batch in all.

    Attributes:
        broken: message with the images and losses of the last such batch.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.broken = ""
        self._norms = [module for module in model.modules() if isinstance(module, BN_MODULE_TYPES)]

    def forward(self, batch: Batch) -> dict[str, Tensor] | None:
        """Return the losses, or None and log a warning if one is infinite or NaN."""
        buffers = [buffer for norm in self._norms for buffer in norm.buffers()]
        before = [buffer.clone() for buffer in buffers]
        losses: dict[str, Tensor] = {}
        reason = ""
        try:
            losses = self.model(batch)
        except FloatingPointError as error:
            # Raised by detectron2 if predicted boxes are infinite or NaN.
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
        """Check the losses of all processes, before their gradients are averaged."""
        device = next(self.model.parameters()).device
        finite = torch.tensor(bool(losses), device=device)
        if losses:
            # In one go: every transfer from a GPU waits for it.
            finite = torch.stack([loss.detach() for loss in losses.values()]).isfinite().all()
        if comm.get_world_size() > 1:
            finite = finite.float()
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
        return bool(finite.item())


def _gather_reasons(reason: str, images: list[str]) -> str:
    """Combine the reasons and image names of all processes; an empty reason means no failure."""
    of_all = [found for found in comm.all_gather((reason, images)) if found[0]]
    reasons = " ".join(dict.fromkeys(reason for reason, _ in of_all))
    return f"images {', '.join(name for _, names in of_all for name in names)}: {reasons}"


class Loop(SimpleTrainer):  # type: ignore[misc]
    """detectron2's training iteration, in full or mixed precision, that can skip a batch.

    A batch with an infinite or NaN loss changes neither the weights nor the state of optimizer,
    batch norm and gradient scaler.

    Attributes:
        skipped: number of batches skipped so far, including before a resume.
        skipped_in_a_row: number of batches skipped since the last training step.
    """

    def __init__(
        self, model: nn.Module, loader: DataLoader[Batch], optimizer: Optimizer, cfg: CfgNode
    ) -> None:
        """Start iterating over the loader.

        Args:
            model: returns losses; with several processes, averages their gradients.
            loader: endless batches.
            optimizer: optimizer of the model's parameters.
            cfg: provides the device, mixed precision, and the limits of skipped batches:
                ``SOLVER.MAX_SKIPPED_IN_A_ROW`` and ``SOLVER.MAX_SKIPPED``.
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
        """Train on one batch, or skip it.

        Raises:
            TrainingDivergedError: too many batches were skipped, or the weights are not finite.
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
        get_event_storage().put_scalar(_SKIPPED, self.skipped, smoothing_hint=False)

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
            reasons = ["The weights became infinite or NaN too."]
        if reasons:
            raise TrainingDivergedError(
                f"iteration {self.iter}, {self.model.broken} {reasons[0]} {ADVICE}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint in addition to the model."""
        state: dict[str, Any] = super().state_dict()
        state["scaler"] = self.scaler.state_dict()
        state["skipped"] = [self.skipped, self.skipped_in_a_row]
        state["threads"] = torch.get_num_threads()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint; on a CPU, the number of torch's threads too."""
        super().load_state_dict(state_dict)
        self.scaler.load_state_dict(state_dict["scaler"])
        self.skipped, self.skipped_in_a_row = state_dict["skipped"]
        threads: int = state_dict["threads"]
        if self.device == "cpu" and threads != torch.get_num_threads():
            # Sums are split among the threads, so that their number decides on the rounding.
            logger.info("resuming with %d threads, with which the training began", threads)
            torch.set_num_threads(threads)


def finite_weights(model: nn.Module) -> bool:
    """Return whether all parameters are finite."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())
