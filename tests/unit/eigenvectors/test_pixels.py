import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.pixels import colour_features, pixel_features


def disc(size=(200, 150)):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 12, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise + np.array([40, 80, 120], np.uint8))
    ImageDraw.Draw(image).ellipse((60, 40, 120, 100), fill=(220, 180, 30))
    return image


@pytest.mark.parametrize(("size", "patch"), [(480, 16), (476, 14), (480, 8)])
def test_gives_one_vector_a_patch_of_equal_lengths(size, patch):
    features = pixel_features(disc(), size=size, patch=patch)
    assert features.shape == ((size // patch) ** 2, 64)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.full((len(features),), 32**0.5))
    assert torch.equal(features, pixel_features(disc(), size=size, patch=patch))


def test_the_eigenvector_separates_a_disc_from_its_surroundings():
    vector = ncut(pixel_features(disc(), size=480, patch=16)).vectors.numpy().reshape(30, 30)
    row, column = np.mgrid[:30, :30]
    # The disc's centre and radius, in patches of the squashed image.
    radius = np.hypot((column + 0.5) / 30 * 200 - 90, (row + 0.5) / 30 * 150 - 70)
    inside, outside = vector[radius < 25], vector[radius > 36]
    assert inside.min() > outside.max() or inside.max() < outside.min()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 3)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
def test_images_of_one_colour_or_odd_sizes_give_numbers(size, colour):
    features = pixel_features(Image.new("RGB", size, colour), size=480, patch=16)
    assert features.isfinite().all()
    assert ncut(features).status == "ok"


def test_colours_are_as_similar_as_they_look():
    image = Image.new("RGB", (64, 48), (120, 60, 60))
    for left, colour in ((16, (125, 62, 60)), (32, (160, 90, 60)), (48, (20, 90, 200))):
        image.paste(colour, (left, 0, left + 16, 48))
    features = colour_features(image, size=480, patch=8)
    assert features.shape == (3600, 64)
    # The middle of each stripe.
    stripes = torch.nn.functional.normalize(features.reshape(60, 60, 64)[30, 7::15], dim=1)
    near, further, far = (stripes[1:] @ stripes[0]).tolist()
    assert near > 0.95
    assert near > further + 0.1 > far + 0.3
    up = colour_features(image.transpose(Image.Transpose.ROTATE_180), size=480, patch=8)
    torch.testing.assert_close(up.flip(0), features, atol=0.05, rtol=0)
