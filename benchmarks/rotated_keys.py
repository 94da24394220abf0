"""Cosines of DINOv3's keys before and after the rotation by their patches' positions.

The weights are random: the cosines show the architecture alone. Prints the mean cosine of two
patches by their distance, for an image of one colour and for photographs:

    python benchmarks/rotated_keys.py IMAGE...
"""

import sys
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor

from cuvler.eigenvectors.vit import ViTFeatures, prepare_image
from cuvler.images import open_image

MODEL = "vit_small_patch16_dinov3"
SIZE, PATCH = 480, 16
DISTANCES = (1, 4, 8, 16, 32)


def cosines(image: Image.Image, *, rotated: bool) -> Tensor:
    """Return the cosines (n, n) of the keys of an image's patches in the last layer."""
    torch.manual_seed(0)
    model: Any = timm.create_model(MODEL, num_classes=0, dynamic_img_size=True)
    attention, rope = model.blocks[-1].attn, model.rope
    keys = ViTFeatures(model, "key")(prepare_image(image, SIZE)[None])[0]
    if rotated:
        side = SIZE // PATCH
        heads = keys.reshape(len(keys), attention.num_heads, -1).transpose(0, 1)
        angles = rope.get_embed(shape=(side, side))
        heads = apply_rot_embed_cat(heads, angles, half=attention.rotate_half)
        keys = heads.transpose(0, 1).flatten(1)
    keys = torch.nn.functional.normalize(keys, dim=1)
    return keys @ keys.T


def main() -> None:
    """Print one line for each kind of image and of keys."""
    y, x = np.indices((SIZE // PATCH, SIZE // PATCH)).reshape(2, -1)
    apart = torch.from_numpy(np.abs(y[:, None] - y) + np.abs(x[:, None] - x))
    images = {"one colour": [Image.new("RGB", (SIZE, SIZE), (99, 99, 99))]}
    images["photographs"] = [open_image(path) for path in sys.argv[1:]]
    print("cosine at a distance of", *DISTANCES, "patches; smallest")
    for kind, some in images.items():
        for rotated in (False, True) if some else ():
            found = torch.stack([cosines(image, rotated=rotated) for image in some])
            means = [float(found[:, apart == distance].mean()) for distance in DISTANCES]
            words = " ".join(f"{value:.2f}" for value in [*means, float(found.min())])
            print(f"{kind}, {'rotated' if rotated else 'before'}: {words}")


if __name__ == "__main__":
    main()
