"""``cuvler weights``: fetch a backbone's weights, once, with their sha256."""

import logging
from pathlib import Path

import click

from cuvler.errors import ConfigError

log = logging.getLogger(__name__)


@click.command("weights")
@click.option(
    "--backbone", required=True, help="A ViT's name, or dino_resnet50 that detectors start from."
)
@click.option("--sha256", help="Refuse a file with another digest.")
@click.option("--output", type=Path, required=True, help="The file to write (.safetensors).")
def command(backbone: str, sha256: str | None, output: Path) -> None:
    """Fetch a backbone's weights and record their sha256 beside them."""
    from cuvler.eigenvectors.backbones import backbone_spec
    from cuvler.eigenvectors.weights import fetch_backbone, fetch_dino_resnet50

    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: weights are kept as .safetensors; name it so")
    if backbone == "dino_resnet50":
        digest = fetch_dino_resnet50(output, sha256=sha256)
    else:
        digest = fetch_backbone(backbone_spec(backbone), output, sha256=sha256)
    log.info("%s: sha256 %s", output, digest)
