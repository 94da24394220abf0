"""Features of tiny DINO and DINOv2 models against the published extraction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from cuvler.eigenvectors.vit import ViTFeatures, prepare_image
from cuvler.images import open_image

FOLDER = Path(__file__).parent / "vit"
GOLDEN = np.load(FOLDER / "vit.npz")


@pytest.mark.parametrize(
    ("family", "patch", "trained_size", "size", "feature", "expected"),
    [
        ("dino_p16", 16, 224, 480, "key", "keys"),
        ("dino_p8", 8, 224, 480, "key", "keys"),
        ("dinov2_p14", 14, 518, 476, "patch_tokens", "patch_tokens"),
    ],
)
def test_features_are_those_of_the_published_extraction(
    family, patch, trained_size, size, feature, expected
):
    model = VisionTransformer(
        img_size=trained_size,
        patch_size=patch,
        embed_dim=48,
        depth=2,
        num_heads=3,
        num_classes=0,
        init_values=1.0 if "v2" in family else None,
        dynamic_img_size=True,
    )
    prefix = f"{family}/state/"
    state = {
        name.removeprefix(prefix): torch.from_numpy(GOLDEN[name])
        for name in GOLDEN.files
        if name.startswith(prefix)
    }
    model.load_state_dict(checkpoint_filter_fn(state, model))

    image = prepare_image(open_image(FOLDER / "000000000001.jpg"), size)
    features = ViTFeatures(model, feature)(image[None])[0]

    reference = torch.from_numpy(GOLDEN[f"{family}/{expected}"])
    assert features.shape == reference.shape
    assert torch.nn.functional.cosine_similarity(features, reference, dim=1).min() >= 0.9999
