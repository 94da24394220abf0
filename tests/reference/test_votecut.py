"""VoteCut against the published code's results for the same eigenvector maps.

Of the 158 golden masks, 142 have the same cluster size and, pixel for pixel, the same vote. The
other 16 are of three kinds:

- 12 have a single vote, and ours has the same clusters, but past the tenth. Which of many
  clusters of one proposal are among the first ten depends only on the order of proposals with
  equally many neighbours. The published order depends on the arbitrary cluster numbers of
  scikit-learn's k-means and on NumPy's unstable sort, which differs between processors: with
  other seeds the published steps agree with the goldens in 147 masks, without AVX in 120. Ours
  is stable.
- 3, in images 2, 7 and 16, differ by up to 6 of 40 patches because k-means does: of the 192
  clusterings behind the goldens 34 are not optimal (Lloyd's iterations stop early or in a local
  optimum; image 15's dino_s16 with 2 clusters costs 10 % more than the optimum).
- 1, in image 15, is of a cluster that took another proposal first, for both reasons.

Vote masks with an IoU above 0.9 are matched as the same cluster. The final masks of the
matched ones are the same pixel for pixel where the votes are, with pydensecrf (the same library);
with the compiled CRF a few pixels may differ by rounding. In image 2 the vote of one tiny cluster
differs by 4 pixels and the CRF shrinks the mask where it grew the golden one.
"""

from pathlib import Path

import numpy as np
import pytest

from cuvler.files import read_json
from cuvler.images import open_image
from cuvler.masks import decode
from cuvler.pseudo_masks import votecut
from cuvler.pseudo_masks.proposals import propose
from cuvler.pseudo_masks.vote_cut import vote

GOLDEN = Path(__file__).parent / "votecut"
IMAGES = read_json(GOLDEN / "votecut.json")["images"]
KMEANS_DIFFERS = {"000000000002.jpg", "000000000007.jpg", "000000000015.jpg", "000000000016.jpg"}


def maps_of(image):
    return dict(np.load(GOLDEN / image["file_name"].replace(".jpg", ".npz")))


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def match(golden, ours):
    """Pairs of golden annotations and our masks of the same cluster, each used once."""
    free, pairs = list(ours), []
    for annotation in golden:
        vote_mask = decode(annotation["vote_mask"])
        best = max(free, key=lambda mask: iou(mask.vote_mask, vote_mask), default=None)
        if best is not None and iou(best.vote_mask, vote_mask) > 0.9:
            free.remove(best)
            pairs.append((annotation, best))
    return pairs


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image["file_name"])
def test_proposals_and_votes(image):
    proposals = propose(maps_of(image), ks=(2, 3))
    assert len(proposals) == image["num_proposals"]
    assert len(vote(proposals)) == len(image["annotations"])
    every = vote(proposals, max_masks=len(proposals))
    for annotation in image["annotations"]:
        golden = decode(annotation["vote_mask"])
        sizes = [v.size for v in every if np.array_equal(v.mask, golden)]
        # Found, if past the tenth, unless k-means differs.
        assert annotation["cluster_size"] in sizes or image["file_name"] in KMEANS_DIFFERS


@pytest.fixture(scope="module", params=["fast", "pydensecrf"])
def found(request):
    """Our masks of every image, with either CRF."""
    return [
        votecut(open_image(GOLDEN / image["file_name"]), maps_of(image), crf=request.param)
        for image in IMAGES
    ]


@pytest.mark.slow
def test_masks(found):
    same_count = 0
    pairs = []
    for image, ours in zip(IMAGES, found, strict=True):
        same_count += len(ours) == len(image["annotations"])
        pairs += match(image["annotations"], ours)
    assert same_count == 16
    assert len(pairs) >= 144
    assert all(golden["cluster_size"] == ours.cluster_size for golden, ours in pairs)
    votes = [iou(decode(golden["vote_mask"]), ours.vote_mask) for golden, ours in pairs]
    assert np.count_nonzero(np.array(votes) == 1) >= 142
    masks = np.array([iou(decode(golden["segmentation"]), ours.mask) for golden, ours in pairs])
    assert masks.mean() >= 0.995
    assert masks[np.array(votes) == 1].min() > 0.999
    assert all(golden["crf_success"] == ours.crf_success for golden, ours in pairs)


@pytest.mark.slow
def test_scores(found):
    for image, ours in zip(IMAGES, found, strict=True):
        golden = [annotation["score"] for annotation in image["annotations"]]
        # Image 15's largest cluster has 3 members in the goldens, 2 by optimal k-means.
        if image["file_name"] != "000000000015.jpg":
            assert [mask.score for mask in ours] == pytest.approx(golden)
