"""``cuvler weights``: fetch a backbone's weights and record their sha256."""

import logging
from pathlib import Path

import click

from cuvler.commands import options
from cuvler.errors import ConfigError

logger = logging.getLogger(__name__)


@click.command("weights")
@click.option(
    "--backbone", required=True, help="A ViT, or dino_resnet50, the initial weights of detectors."
)
@options.definitions()
@options.sha256()
@options.output("The file to write (.safetensors).")
def command(backbone: str, definitions: str, sha256: str | None, output: Path) -> None:
    """Fetch a backbone's weights and write their sha256 to OUTPUT.sha256."""
    from cuvler.eigenvectors.backbones import backbone_spec, parse_definitions
    from cuvler.eigenvectors.weights import fetch_backbone, fetch_dino_resnet50

    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: weights are written as .safetensors")
    if backbone == "dino_resnet50":
        digest = fetch_dino_resnet50(output, sha256=sha256)
    else:
        spec = backbone_spec(backbone, parse_definitions(definitions))
        digest = fetch_backbone(spec, output, sha256=sha256)
    logger.info("%s: sha256 %s", output, digest)
