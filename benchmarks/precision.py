"""Measure the effect of rounding: half precision in the ViT, float16 eigenvectors on disk.

    python benchmarks/precision.py

The graph is binary, so a small change of the features can add or remove edges and change the
eigenvectors. Masks are thresholded eigenvectors, so rounding them can change pixels. Features and
maps are the tests' reference data.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.backbones import BACKBONES
from cuvler.eigenvectors.cuts import cut_repeatedly
from cuvler.eigenvectors.partitions import partitions
from cuvler.eigenvectors.vit import ViTFeatures, create_vit, prepare_image
from cuvler.images import open_image
from cuvler.pseudo_masks import votecut

REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
BAR = 0.9999  # required cosine with the published code's eigenvector
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="dino_s16", help="a ViT, with random weights")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    errors = {name: feature_error(arguments.backbone, kind) for name, kind in TYPES.items()}
    mixed_precision(errors, arguments.seeds)
    stored_maps()
    stored_cuts()


def feature_error(backbone: str, kind: torch.dtype) -> float:
    """Return the mean relative error per patch of a ViT's features under torch's autocast."""
    spec = BACKBONES[backbone]
    torch.manual_seed(0)
    model = ViTFeatures(create_vit(spec), spec.feature)
    paths = sorted((REFERENCE / "votecut").glob("*.jpg"))[:2]
    images = torch.stack([prepare_image(open_image(path), spec.size) for path in paths])
    normalized = (images - model.mean) / model.std
    with torch.inference_mode():
        exact = model.model.forward_features(normalized)
        with torch.autocast("cpu", kind):
            rounded = model.model.forward_features(normalized)
    return float(((rounded - exact).norm(dim=-1) / exact.norm(dim=-1)).mean())


def reference_features() -> Iterator[NDArray[np.float32]]:
    """Yield the features of 17 images, (n, d) each, with 900 to 3600 patches."""
    for name in ("ncut/ncut.npz", "maskcut/maskcut.npz"):
        content = np.load(REFERENCE / name)
        for key in content.files:
            if key.startswith(("features", "0")):
                yield content[key].astype(np.float32)


def mixed_precision(errors: dict[str, float], seeds: int) -> None:
    """Print the change of eigenvectors under noise of the size of a precision's rounding."""
    print("\n| features as of | relative error | lowest cosine | median | graphs under 0.9999 |")
    print("|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, error in errors.items():
        cosines = []
        for features in reference_features():
            exact = ncut(features).vectors[0]
            for _ in range(seeds):
                noise = rng.standard_normal(features.shape).astype(np.float32)
                scale = np.linalg.norm(features, axis=1) / np.linalg.norm(noise, axis=1)
                moved = ncut(features + error * scale[:, None] * noise).vectors[0]
                cosines.append(abs(float(exact @ moved)))
        under = sum(cosine < BAR for cosine in cosines)
        print(
            f"| {name} | {error:.1e} | {min(cosines):.6f} | {np.median(cosines):.6f} "
            f"| {under} of {len(cosines)} |"
        )


def stored_maps() -> None:
    """Print the number of VoteCut's masks that rounding the maps to float16 leaves unchanged."""
    same = total = 0
    for path in sorted((REFERENCE / "votecut").glob("*.npz")):
        maps = {name: vector.astype(np.float32) for name, vector in np.load(path).items()}
        image = open_image(path.with_suffix(".jpg"))
        rounded = {name: vector.astype(np.float16) for name, vector in maps.items()}
        ours, others = votecut(image, maps), votecut(image, rounded)
        total += len(ours)
        if len(ours) == len(others):
            pairs = zip(ours, others, strict=True)
            same += sum(np.array_equal(one.mask, other.mask) for one, other in pairs)
    print(f"\nVoteCut from maps in float16: {same} of {total} masks are identical")


def stored_cuts() -> None:
    """Print the number of MaskCut's cuts that float16 eigenvectors leave unchanged."""
    same = total = 0
    content = np.load(REFERENCE / "maskcut" / "maskcut.npz")
    for features in content.values():
        side = round(len(features) ** 0.5)
        pairs = cut_repeatedly(torch.from_numpy(features)[None], (side, side))
        vectors = pairs.vectors[0].numpy().reshape(-1, side, side)
        rounded = partitions(vectors.astype(np.float16).astype(np.float32))
        same += int((partitions(vectors) == rounded).all(axis=(1, 2)).sum())
        total += len(vectors)
    print(f"MaskCut from eigenvectors in float16: {same} of {total} cuts are identical")


if __name__ == "__main__":
    main()
