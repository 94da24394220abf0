"""Downloading weight files with their SHA-256, and reading a ViT's state dict.

torch and timm take seconds to import; what fails without a network fails before that.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cuvler.download.digests import file_sha256, record_sha256
from cuvler.download.errors import FetchError
from cuvler.eigenvectors.backbones import BACKBONES, BackboneSpec
from cuvler.errors import ConfigError, DataError
from cuvler.extras import require_extra
from cuvler.files import StrPath, atomic_path

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_HUB_FILE = "model.safetensors"
_DINO_RESNET50 = (
    "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
)


class FetchWeightsError(DataError):
    """Weights cannot be downloaded.

    Attributes:
        reason: why, without the file's name.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def fetch_backbone(spec: BackboneSpec, destination: StrPath, *, sha256: str | None = None) -> str:
    """Download timm's published weights of a ViT from the Hugging Face hub; log their licence.

    Args:
        spec: the backbone.
        destination: the ``.safetensors`` file to write; its SHA-256 is written to
            ``destination.sha256``.
        sha256: the expected SHA-256, if known.

    Returns:
        The file's SHA-256.

    Raises:
        ConfigError: the backbone has no weights, or timm publishes none.
        FetchWeightsError: the download fails.
        DataError: the SHA-256 differs from the expected one.
    """
    if spec.timm is None:
        raise ConfigError(f"backbone {spec.name!r} is a pixel backbone and has no weights to fetch")
    # The table's names are those on the hub; a test asks timm.
    is_listed = any(spec.timm == listed.timm for listed in BACKBONES.values())
    repository = f"timm/{spec.timm}" if is_listed else _hub_repository(spec.timm)

    def fetch(path: Path) -> None:
        from cuvler.eigenvectors.hub import fetch_from_hub

        shutil.copyfile(fetch_from_hub(repository, _HUB_FILE), path)

    source = f"{_HUB_FILE} of {repository} on the Hugging Face hub"
    digest = _fetch(fetch, source, destination, sha256)
    logger.info("licence of the weights: %s (docs/backbones.md)", license_of(spec))
    return digest


def _hub_repository(timm_name: str) -> str:
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(timm_name, allow_unregistered=False)
    except RuntimeError as error:
        raise ConfigError(f"timm has no model {timm_name!r}: {error}") from error
    if config is None or not config.hf_hub_id:
        raise ConfigError(f"timm has no weights of {timm_name!r}; give a model with its tag")
    return str(config.hf_hub_id)


def license_of(spec: BackboneSpec) -> str:
    """Return the licence of a ViT's weights as timm records it."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(spec.timm or "", allow_unregistered=False)
    known = config.license if config else None
    return str(known) if known else "timm does not say; see their source"


def fetch_dino_resnet50(destination: StrPath, *, sha256: str | None = None) -> str:
    """Download DINO's ResNet-50, the detectors' initial weights, and save it as safetensors.

    Arguments and errors are those of :func:`fetch_backbone`.
    """
    require_extra("download")
    from safetensors.torch import save_file

    from cuvler.download.http import fetch_http

    part = Path(destination).with_name(f"{Path(destination).stem}.pth.part")

    def fetch(path: Path) -> None:
        fetch_http(_DINO_RESNET50, part)
        try:
            save_file(read_state(part), path)
        finally:
            part.unlink()

    return _fetch(fetch, _DINO_RESNET50, destination, sha256)


def _fetch(
    fetch: Callable[[Path], None],
    source: str,
    destination: StrPath,
    sha256: str | None,
) -> str:
    destination = Path(destination)
    with atomic_path(destination) as temporary:
        try:
            fetch(temporary)
        except (FetchError, OSError) as error:
            raise FetchWeightsError(
                str(error),
                f"cannot fetch {source} ({error}); fetch it on a machine with network and put "
                f"it at {destination}, or set its path as the backbone's weights",
            ) from error
        digest = file_sha256(temporary)
        if sha256 is not None and digest != sha256.lower():
            raise DataError(
                f"{source}: sha256 is {digest}, not the pinned {sha256}; the download was "
                "deleted. Correct the pin, or find out why the file has changed"
            )
        # Before the file is renamed, so that it is never without its digest.
        record_sha256(destination, digest)
    return digest


def read_state(path: StrPath) -> dict[str, "Tensor"]:
    """Read a state dict from a ``.safetensors`` or ``.pth`` file.

    It may be under ``model`` or ``state_dict``, as MAE's and iBOT's are.

    Raises:
        DataError: the file is missing or damaged, or contains anything but tensors.
    """
    from torch import Tensor

    from cuvler.tensor_files import read_tensors, require_finite

    state = read_tensors(path)
    for key in ("model", "state_dict"):
        state = state[key] if isinstance(state.get(key), dict) else state
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path}: not a state dict ({name} is {type(value).__name__}); save the model's "
                "state dict alone"
            )
    require_finite(path, state)
    return state
