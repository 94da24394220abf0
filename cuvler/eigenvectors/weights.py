"""Weight files: fetched once with their sha256 beside them, and read without running code."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from cuvler.download.digests import file_sha256, record_sha256
from cuvler.download.errors import FetchError
from cuvler.download.http import fetch_http
from cuvler.eigenvectors.backbones import BackboneSpec
from cuvler.errors import ConfigError, DataError
from cuvler.files import StrPath, atomic_path
from cuvler.tensor_files import read_tensors

logger = logging.getLogger(__name__)

_HUB_FILE = "model.safetensors"
_DINO_RESNET50 = (
    "https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth"
)


def fetch_backbone(spec: BackboneSpec, destination: StrPath, *, sha256: str | None = None) -> str:
    """Fetch a ViT's weights from the Hugging Face hub, as timm publishes them.

    Args:
        spec: the backbone.
        destination: the ``.safetensors`` file to write; ``destination.sha256`` is written beside.
        sha256: what the file's digest must be, if it is known.

    Returns:
        The file's sha256.

    Raises:
        ConfigError: the backbone has no weights, or timm none to fetch.
        DataError: the file cannot be fetched, or is not the one that was pinned.
    """
    if spec.timm is None:
        raise ConfigError(f"backbone {spec.name!r} is made of pixels; it has no weights to fetch")
    repository = _hub_repository(spec.timm)

    def fetch(path: Path) -> None:
        from huggingface_hub import hf_hub_download

        logger.info("fetching %s from the Hugging Face hub", repository)
        # Each of its retries would be told twice; what remains of them is in the error.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        shutil.copyfile(hf_hub_download(repository, _HUB_FILE), path)

    return _fetch(
        fetch, f"{_HUB_FILE} of {repository} on the Hugging Face hub", destination, sha256
    )


def _hub_repository(timm_name: str) -> str:
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(timm_name, allow_unregistered=False)
    except RuntimeError as error:
        raise ConfigError(f"timm has no model {timm_name!r}: {error}") from error
    if config is None or not config.hf_hub_id:
        raise ConfigError(f"timm publishes no weights of {timm_name!r}; give a model with its tag")
    return str(config.hf_hub_id)


def fetch_dino_resnet50(destination: StrPath, *, sha256: str | None = None) -> str:
    """Fetch DINO's ResNet-50, which detectors start from, and keep it as safetensors.

    Args and errors are those of :func:`fetch_backbone`.
    """

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
        # Having no network, or no such file there, derives from OSError in the hub.
        except (FetchError, OSError) as error:
            raise DataError(
                f"cannot fetch {source} ({error}); fetch it on a machine with network and put "
                f"it at {destination}, or set its path as the backbone's weights"
            ) from error
        digest = file_sha256(temporary)
        if sha256 is not None and digest != sha256.lower():
            raise DataError(
                f"{source}: sha256 is {digest}, not the pinned {sha256}; nothing was kept. "
                "Correct the pin, or find out why the file has changed"
            )
    record_sha256(destination, digest)
    return digest


def read_state(path: StrPath) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, or a ``.pth`` file of tensors alone.

    Raises:
        DataError: the file is missing, damaged, or holds more than tensors.
    """
    state = read_tensors(path)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path}: not a state dict ({name} is {type(value).__name__}); save the model's "
                "state dict alone"
            )
    return state
