"""The eigenvectors of the published dense float64 solver, for three images and patch sizes."""

from pathlib import Path

import numpy as np
import pytest

from cuvler.eigenvectors import ncut

GOLDEN = np.load(Path(__file__).parent / "ncut" / "ncut.npz")
GRAPHS = sorted(name.removeprefix("features_") for name in GOLDEN.files if "features" in name)
# Closer eigenvalues share an eigenspace, for which any basis is correct.
SIMPLE = 1e-4


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("graph", GRAPHS)
def test_eigenvectors_are_those_of_the_dense_solver(graph, k):
    pairs = ncut(GOLDEN[f"features_{graph}"], tau=0.15, eps=1e-5, k=k)
    expected = GOLDEN[f"eigenvectors_{graph}"].T[:k]
    values = GOLDEN[f"eigenvalues_{graph}"]

    assert np.diff(values).min() > SIMPLE
    assert pairs.status == "ok"
    cosines = np.abs((pairs.vectors * expected).sum(axis=1))
    assert cosines.min() >= 0.9999
    np.testing.assert_allclose(pairs.values, values[:k], atol=1e-5)
    assert pairs.residuals.max() <= 2e-6
