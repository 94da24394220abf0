import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cuvler.eigenvectors import ncut
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.errors import ConfigError
from cuvler.images import open_image
from cuvler.pseudo_masks import votecut
from cuvler.pseudo_masks.proposals import propose
from cuvler.pseudo_masks.vote_cut import VoteCut

SCENES = Path(__file__).parents[2] / "reference/votecut"


def maps(seed, sizes=(30, 34, 60)):
    """Smooth random maps: a few blobs each."""
    rng = np.random.default_rng(seed)
    found = {}
    for index, size in enumerate(sizes):
        y, x = np.mgrid[:size, :size] / size
        centres = rng.random((3, 2))
        blobs = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.02) for a, b in centres]
        found[f"b{index}"] = sum(blobs).astype(np.float32)
    return found


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@given(st.integers(0, 1000), st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=25)
def test_masks_hold_what_they_promise(seed, width, height):
    masks = votecut(picture(width, height), maps(seed), crf="fast")
    assert len(masks) <= 10
    sizes = [mask.cluster_size for mask in masks]
    assert sizes == sorted(sizes, reverse=True)
    for mask in masks:
        assert mask.mask.shape == (height, width)
        assert mask.mask.dtype == mask.vote_mask.dtype == bool
        assert mask.vote_mask.shape == (60, 60)
        assert mask.mask.any()
        assert mask.vote_mask.any()
        assert mask.score == mask.cluster_size / sizes[0]


@pytest.mark.parametrize("crf", ["fast", "pydensecrf"])
def test_the_same_every_time(crf):
    first, second = (votecut(picture(80, 60), maps(3), crf=crf) for _ in range(2))
    assert first
    for one, other in zip(first, second, strict=True):
        assert (one.mask == other.mask).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_are_taken_as_rgb(mode):
    image = picture(80, 60).convert(mode)
    ours = votecut(image, maps(3), crf="fast")
    as_rgb = votecut(image.convert("RGB"), maps(3), crf="fast")
    assert [m.mask.tobytes() for m in ours] == [m.mask.tobytes() for m in as_rgb]


@pytest.mark.parametrize(
    "bad", [np.ones((30, 30)), np.full((30, 30), np.nan), np.ones((1, 1))], ids=["1", "nan", "one"]
)
def test_a_map_without_a_say_changes_nothing(bad):
    image = picture(80, 60)
    with_bad = votecut(image, {"bad": bad, **maps(3)}, crf="fast")
    without = votecut(image, maps(3), crf="fast")
    assert [m.mask.tobytes() for m in with_bad] == [m.mask.tobytes() for m in without]
    assert votecut(image, {"bad": bad}) == []


def test_no_maps_no_masks():
    assert votecut(picture(8, 8), {}) == []


@pytest.fixture(scope="module", params=["000000000001.jpg", "000000000004.jpg"])
def solved(request):
    """A photo-like scene, and the first two eigenvectors of its patches, (2, h, w)."""
    image = open_image(SCENES / request.param)
    backbone = load_backbone(backbone_spec("pixels_p16"))
    pairs = ncut(backbone.features(backbone.prepare(image)[None]), k=2)
    return image, pairs.vectors[0].numpy().reshape(2, *backbone.spec.grid)


def test_each_of_several_eigenvectors_makes_proposals(solved):
    _, pair = solved
    both, first, second = (propose({"a": maps}, (2, 3)) for maps in (pair, pair[0], pair[1]))
    assert len(first)
    assert len(second)
    np.testing.assert_array_equal(both, np.concatenate([first, second]))
    np.testing.assert_array_equal(propose({"a": pair[:1]}, (2, 3)), first)
    with_bad = np.stack([np.full_like(pair[0], np.nan), pair[1]])
    np.testing.assert_array_equal(propose({"a": with_bad}, (2, 3)), second)


def test_several_eigenvectors_vote(solved):
    image, pair = solved
    method = VoteCut(backbones=("a",), num_eigenvectors=2)
    assert method.needs() == {"a": Eigenvectors(2)}
    masks = method.masks(image, {"a": pair})
    found = {mask.vote_mask.tobytes() for mask in masks}
    for vector in pair:
        alone = votecut(image, {"a": vector}, tau_m=0.2)
        assert found & {mask.vote_mask.tobytes() for mask in alone}
    assert method.info()["num_eigenvectors"] == 2
    assert "num_eigenvectors" not in VoteCut().info()


def test_the_number_of_masks_is_a_setting(solved):
    image, pair = solved
    every = {
        mask.vote_mask.tobytes()
        for mask in VoteCut(backbones=("a",), max_masks=99).masks(image, {"a": pair})
    }
    for most in (1, 2, 99):
        method = VoteCut(backbones=("a",), max_masks=most)
        found = [mask.vote_mask.tobytes() for mask in method.masks(image, {"a": pair})]
        assert len(found) == min(most, len(every))
        assert set(found) <= every
        assert method.info()["max_masks"] == most
    # Files that are made with the published number are those of before the setting.
    assert "max_masks" not in VoteCut().info()


def test_more_eigenvectors_than_an_image_has_are_refused():
    with pytest.raises(ConfigError, match=r"^6 eigenvectors: .* 6 patches") as raised:
        Eigenvectors(6).solve(torch.rand(1, 6, 4), (2, 3), tau=0.15, eps=1e-5)
    assert raised.value.parameter == "num_eigenvectors"
    pairs = Eigenvectors(5).solve(torch.rand(1, 6, 4), (2, 3), tau=0.15, eps=1e-5)
    assert pairs.vectors.shape == (1, 5, 6)


def test_importing_the_package_is_light():
    code = "import sys, cuvler.pseudo_masks; print({'scipy', 'numba', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
