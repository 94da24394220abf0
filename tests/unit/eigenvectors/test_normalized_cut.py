import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvler.eigenvectors import lanczos, ncut, normalized_cut
from cuvler.eigenvectors.affinity import FloatGraph, NormalizedAffinity, unit_rows
from cuvler.eigenvectors.bit_graph import BitGraph

TAU, EPS = 0.15, 1e-5


def weights(features, tau=TAU, eps=EPS):
    """W of DESIGN's formula, in float64, straight from the definition."""
    features = features.astype(np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(norms > 0, norms, 1)
    return np.where(unit @ unit.T > tau, 1.0, eps)


def dense(features, k, tau=TAU, eps=EPS):
    """Eigenvectors (k, n) from the second smallest on, and all eigenvalues (n,)."""
    w = weights(features, tau, eps)
    root = np.sqrt(w.sum(axis=1))
    values, vectors = scipy.linalg.eigh(np.eye(len(w)) - w / np.outer(root, root))
    return vectors[:, 1 : k + 1].T, values


def alignment(vectors, expected):
    """The smallest cosine between two subspaces given by orthonormal rows."""
    return np.linalg.svd(vectors.astype(np.float64) @ expected.T, compute_uv=False).min()


def random_features(seed, n=150, d=24):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("n", "d"), [(100, 4), (225, 64), (400, 16)])
def test_agrees_with_the_dense_solver_on_random_features(n, d, k):
    features = random_features(n, n, d)
    expected, values = dense(features, k)
    pairs = ncut(features, k=k)
    assert pairs.status == "ok"
    assert np.diff(values[1 : k + 2]).min() > 1e-4
    assert np.abs((pairs.vectors * expected).sum(axis=1)).min() >= 0.9999
    np.testing.assert_allclose(pairs.values, values[1 : k + 1], atol=1e-6)


@pytest.mark.parametrize(("tau", "eps"), [(0.0, 1e-5), (0.3, 1e-3), (-0.2, 0.1)])
def test_tau_and_eps_mean_what_they_say(tau, eps):
    features = random_features(1)
    expected, _ = dense(features, 1, tau, eps)
    assert np.abs(ncut(features, tau=tau, eps=eps).vectors @ expected[0]) >= 0.9999


def test_generalized_vectors_solve_the_generalized_problem():
    features = random_features(2)
    features[10:30] = 0  # patches that MaskCut has taken out
    w = weights(features)
    d = np.diag(w.sum(axis=1))
    _, vectors = scipy.linalg.eigh(d - w, d, subset_by_index=[1, 2])
    pairs = ncut(features, k=2)
    np.testing.assert_allclose(pairs.degrees, w.sum(axis=1), rtol=1e-6)
    x = pairs.generalized()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = vectors.T / np.linalg.norm(vectors.T, axis=1, keepdims=True)
    assert np.abs((x * expected).sum(axis=1)).min() >= 0.9999


def test_all_patches_alike():
    pairs = ncut(np.ones((200, 8), np.float32), k=3)
    assert pairs.status == "ok"
    # Every vector orthogonal to the constant one is an eigenvector, of eigenvalue 1.
    np.testing.assert_allclose(pairs.values, 1, atol=1e-6)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(pairs.vectors.sum(axis=1), 0, atol=1e-4)


def test_no_features_at_all():
    pairs = ncut(np.zeros((50, 8), np.float32))
    assert pairs.status == "ok"
    np.testing.assert_allclose(pairs.values, 1, atol=1e-6)


def test_two_disconnected_halves_are_separated():
    features = np.zeros((200, 2), np.float32)
    features[:70, 0] = features[70:, 1] = 1
    pairs = ncut(features)
    assert pairs.status == "ok"
    assert np.unique(np.sign(pairs.vectors[0, :70])).size == 1
    assert (np.sign(pairs.vectors[0, 70:]) == -np.sign(pairs.vectors[0, 0])).all()
    assert alignment(pairs.vectors, dense(features, 1)[0]) >= 0.9999


def test_repeated_eigenvalue_gives_its_whole_eigenspace():
    features = np.repeat(np.eye(4, dtype=np.float32), 60, axis=0)
    expected, values = dense(features, 3)
    assert np.ptp(values[1:4]) < 1e-12
    pairs = ncut(features, k=3)
    assert pairs.status == "ok"
    assert alignment(pairs.vectors, expected) >= 0.9999
    # A single vector is one of the eigenspace.
    assert np.linalg.norm(expected @ ncut(features, k=1).vectors[0]) >= 0.9999


def test_nearly_repeated_eigenvalues_give_their_eigenspace():
    features = np.repeat(np.eye(3, dtype=np.float32), (80, 81, 79), axis=0)
    expected, values = dense(features, 2)
    assert 0 < values[2] - values[1] < 1e-6
    assert alignment(ncut(features, k=2).vectors, expected) >= 0.9999


def test_one_patch_unlike_all_others():
    features = np.ones((300, 4), np.float32)
    features[123] = -1
    pairs = ncut(features)
    assert pairs.status == "ok"
    assert np.abs(pairs.vectors[0]).argmax() == 123
    assert alignment(pairs.vectors, dense(features, 1)[0]) >= 0.9999


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_no_numbers_fail_their_image_alone(bad):
    batch = np.stack([random_features(seed) for seed in range(3)])
    batch[1, 7, 3] = bad
    pairs = ncut(batch, k=2)
    assert pairs.status.tolist() == ["ok", "failed", "ok"]
    for values in (pairs.vectors, pairs.values, pairs.residuals):
        assert np.isnan(values[1]).all()
        assert np.isfinite(values[[0, 2]]).all()
    np.testing.assert_array_equal(pairs.vectors[2], ncut(batch[2], k=2).vectors)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_all_eigenvectors_of_very_few_patches(n):
    features = random_features(n, n, 3)
    expected, values = dense(features, n - 1)
    pairs = ncut(features, k=n - 1)
    assert pairs.status == "ok"
    np.testing.assert_allclose(np.sort(pairs.values), values[1:], atol=1e-6)
    assert alignment(pairs.vectors, expected) >= 0.9999


def test_more_eigenvectors_than_the_usual_number_of_products(monkeypatch):
    monkeypatch.setattr(lanczos, "MAX_PRODUCTS", 5)
    features = random_features(9, n=40)
    pairs = ncut(features, k=30)
    assert alignment(pairs.vectors, dense(features, 30)[0]) >= 0.9999


def test_falls_back_to_the_dense_solver_and_says_so(monkeypatch):
    batch = np.stack([random_features(3), random_features(4)])
    monkeypatch.setattr(lanczos, "MAX_PRODUCTS", 3)
    pairs = ncut(batch, k=2)
    assert pairs.status.tolist() == ["dense", "dense"]
    for image in range(2):
        assert alignment(pairs.vectors[image], dense(batch[image], 2)[0]) >= 0.9999
    assert pairs.residuals.max() <= normalized_cut.TOLERANCE


def test_a_vector_that_fails_the_check_is_not_handed_on(monkeypatch):
    def broken(*_args, **_kwargs):
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(lanczos, "MAX_PRODUCTS", 3)
    monkeypatch.setattr(scipy.linalg, "eigh", broken)
    pairs = ncut(random_features(3))
    assert pairs.status == "failed"
    assert np.isnan(pairs.vectors).all()


def test_sparse_graphs_of_many_small_gaps_fall_back():
    features = random_features(0, 900, 384)  # nearly every patch is like itself alone
    pairs = ncut(features)
    assert pairs.status == "dense"
    expected, _ = dense(features, 1)
    assert alignment(pairs.vectors, expected) >= 0.9999


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e20])
def test_scale_of_features_does_not_matter(scale):
    features = random_features(5)
    expected = ncut(features)
    pairs = ncut(features * np.float32(scale))
    assert pairs.status == "ok"
    np.testing.assert_allclose(pairs.vectors, expected.vectors, atol=1e-4)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 120))
def test_patches_may_be_reordered_and_rescaled(seed, n):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 8)).astype(np.float32)
    order = rng.permutation(n)
    lengths = rng.uniform(0.1, 10, (n, 1)).astype(np.float32)
    _, values = dense(features, 1)
    pairs = ncut(features)
    moved = ncut((lengths * features)[order])
    np.testing.assert_allclose(moved.values, pairs.values, atol=1e-5)
    if values[2] - values[1] > 1e-3:
        assert np.abs((moved.vectors[0] * pairs.vectors[0, order]).sum()) >= 0.9999


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 60), k=st.integers(1, 2))
def test_what_passes_is_an_eigenvector(seed, n, k):
    rng = np.random.default_rng(seed)
    # Few distinct directions: graphs of blocks, with repeated eigenvalues.
    features = rng.integers(-1, 2, (n, 3)).astype(np.float32)
    pairs = ncut(features, k=k)
    w = weights(features)
    root = np.sqrt(w.sum(axis=1))
    laplacian = np.eye(n) - w / np.outer(root, root)
    vectors = pairs.vectors.astype(np.float64)
    assert pairs.status in ("ok", "dense")
    assert np.abs(vectors @ laplacian - pairs.values[:, None] * vectors).max() < 1e-5
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-5)
    np.testing.assert_allclose(pairs.values, dense(features, k)[1][1 : k + 1], atol=1e-5)


def test_sign_is_fixed():
    pairs = ncut(random_features(6), k=3)
    largest = np.abs(pairs.vectors).argmax(axis=1)
    assert (pairs.vectors[np.arange(3), largest] > 0).all()


def test_batch_gives_what_single_images_give():
    batch = np.stack([random_features(seed) for seed in range(3)])
    pairs = ncut(batch, k=2)
    assert pairs.vectors.shape == (3, 2, 150)
    assert pairs.values.shape == pairs.residuals.shape == (3, 2)
    assert pairs.degrees.shape == (3, 150)
    for image in range(3):
        single = ncut(batch[image], k=2)
        assert single.vectors.shape == (2, 150)
        np.testing.assert_array_equal(pairs.vectors[image], single.vectors)


def test_same_call_gives_the_same_bits_and_leaves_the_random_state_alone():
    features = random_features(7)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = ncut(features)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    np.testing.assert_array_equal(first.vectors, ncut(features).vectors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_any_float_type_give_tensors(dtype):
    features = torch.from_numpy(random_features(8)).to(dtype)
    pairs = ncut(features)
    assert isinstance(pairs.vectors, torch.Tensor)
    assert pairs.vectors.dtype == torch.float32
    expected, _ = dense(features.float().numpy(), 1)
    assert alignment(pairs.vectors.numpy(), expected) >= 0.9999


def test_graph_for_other_devices_is_the_same_graph():
    batch = torch.from_numpy(np.stack([random_features(seed) for seed in range(2)]))
    rows, _ = unit_rows(batch)
    floats = FloatGraph(rows, TAU, EPS)
    x = torch.randn(2, 150, generator=torch.Generator().manual_seed(0))
    for image in range(2):
        one = slice(image, image + 1)
        single = BitGraph(rows[one], TAU, EPS)
        np.testing.assert_array_equal(single.weights(0), floats.weights(image))
        np.testing.assert_allclose(single.product(x[one]), floats.product(x)[one], atol=1e-4)
        np.testing.assert_array_equal(single.weights(0), weights(batch[image].numpy()))
        np.testing.assert_array_equal(floats.weights(image), floats.weights(image).T)


def test_sums_over_thousands_of_patches_stay_far_below_the_tolerance():
    batch = torch.from_numpy(np.stack([random_features(seed, 3000, 6) for seed in range(2)]))
    graph = FloatGraph(unit_rows(batch)[0], TAU, EPS)
    x = torch.nn.functional.normalize(torch.rand(2, 3000), dim=-1)
    exact = torch.from_numpy(graph.weights(0)) @ x[0].double()
    error = (graph.product(x)[0] - exact).norm() / exact.norm()
    assert error < normalized_cut.TOLERANCE / 5


# Around the 64 patches of a word and the 256 of a block.
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 128, 255, 256, 257, 330])
@pytest.mark.parametrize("tau", [TAU, -0.2])
def test_graph_of_bits_is_the_graph_at_every_size(n, tau):
    features = random_features(n, n)
    features[n // 2] = 0  # as MaskCut takes patches out
    rows, _ = unit_rows(torch.from_numpy(features)[None])
    graph = BitGraph(rows, tau, EPS)
    expected = weights(features, tau)
    np.testing.assert_array_equal(graph.weights(0), expected)
    assert not np.any(graph._edges[-1] >> np.uint64((n - 1) % 64) >> np.uint64(1))
    np.testing.assert_allclose(graph.degrees[0], expected.sum(axis=1), rtol=1e-6)
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    product = graph.product(torch.from_numpy(x)[None])[0]
    np.testing.assert_allclose(product, expected @ x, atol=1e-5)


def test_graph_is_symmetric_where_cosines_are_at_the_threshold():
    # Cosines of exactly 0.5 and what rounding makes of them.
    features = np.repeat(np.array([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1]]), 90, axis=0)
    features = features * np.random.default_rng(0).uniform(0.1, 10, (270, 1))
    rows, _ = unit_rows(torch.from_numpy(features)[None])
    joined = BitGraph(rows, 0.5, EPS).weights(0)
    np.testing.assert_array_equal(joined, joined.T)


def test_batches_solved_together_give_what_single_images_give():
    batch = torch.from_numpy(np.stack([random_features(1), np.ones((150, 24), np.float32)]))
    affinity = NormalizedAffinity(FloatGraph(unit_rows(batch)[0], TAU, EPS))
    ritz = lanczos.largest_eigenpairs(affinity.product, affinity.first, k=1, tolerance=2e-6)
    assert ritz.residuals.max() <= 2e-6
    assert alignment(ritz.vectors[0].numpy(), ncut(batch[0]).vectors.numpy()) >= 0.9999
    torch.testing.assert_close(1 - ritz.values[1], torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((5,), {}),
        ((0, 5, 3), {}),
        ((5, 0), {}),
        ((5, 3), {"k": 5}),
        ((5, 3), {"k": 0}),
        ((1, 3), {}),
        ((5, 3), {"eps": 0}),
    ],
)
def test_impossible_calls_are_refused(shape, arguments):
    with pytest.raises(ValueError, match=r"features|eigenvectors|eps"):
        ncut(np.ones(shape, np.float32), **arguments)
