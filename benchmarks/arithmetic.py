"""Print what extraction takes on named GPUs by arithmetic of operations and bytes; runs nothing.

    python benchmarks/arithmetic.py

Times are lower bounds: operations divided by the peak rate of the card's data sheet, and bytes by
its peak bandwidth.
"""

from dataclasses import dataclass

from cuvler.eigenvectors.backbones import BACKBONES, BackboneSpec
from cuvler.plan import _teraflop

BACKBONE_NAMES = ("dino_s16", "dinov2_s14", "dino_b16", "dinov2_b14", "dino_s8", "dino_b8")
# Products of a patch graph with a vector in Lanczos' method and the check of its residual, and
# passes over the matrix while the graph is built: written, read twice and written (the larger of
# the two triangles), read and written (the threshold).
PRODUCTS = 16
PASSES = 6
# Seconds of a core to open a JPEG of COCO's size and resize it: benchmarks/eigenvectors.py.
OPENING = 0.006


@dataclass(frozen=True)
class Card:
    """Peaks of a GPU's data sheet, without sparsity: TFLOP/s and TB/s; PCI Express in GB/s."""

    name: str
    float16: float
    tf32: float
    float32: float
    memory: float
    bus: float


CARDS = (
    Card("A100 SXM 80 GB", float16=312, tf32=156, float32=19.5, memory=2.039, bus=32),
    Card("H100 SXM", float16=989, tf32=494, float32=67, memory=3.35, bus=64),
)


def milliseconds(spec: BackboneSpec, card: Card) -> dict[str, float]:
    """Return the least time of each step for one image."""
    patches = spec.grid[0] * spec.grid[1]
    channels = 768 if "_base_" in str(spec.timm) else 384
    matrix = 4 * patches**2
    return {
        "copy": 3 * spec.size**2 / card.bus / 1e6,
        "float16": 1e3 * _teraflop(spec) / card.float16,
        "float32": 1e3 * _teraflop(spec) / card.float32,
        # Cosines are in float32: rounded to TF32 or float16 they would be on the other side of tau.
        "graph": 2 * patches**2 * channels / card.float32 / 1e9
        + PASSES * matrix / card.memory / 1e9,
        "products": PRODUCTS * matrix / card.memory / 1e9,
    }


def table() -> str:
    """Return the table of all ViTs on all cards."""
    lines = [
        "| card | backbone | GFLOP | copy | forward, float16 (float32) | graph | products "
        "| at most, images/s | cores that open as many |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for card in CARDS:
        for spec in (BACKBONES[name] for name in BACKBONE_NAMES):
            times = milliseconds(spec, card)
            # Copies are by an engine of their own.
            rate = 1e3 / (times["float16"] + times["graph"] + times["products"])
            cells = (
                card.name,
                spec.name,
                f"{1e3 * _teraflop(spec):.0f}",
                f"{times['copy']:.3f} ms",
                f"{times['float16']:.2f} ({times['float32']:.1f}) ms",
                f"{times['graph']:.2f} ms",
                f"{times['products']:.2f} ms",
                f"{rate:,.0f}",
                f"{rate * OPENING:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
