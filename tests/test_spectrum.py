from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scotl_matgl.estimators.spectrum import EmbeddingError, Spectra, Spectrum, log_evidence, maximise_evidence

SHAPES = [(40, 7), (7, 40), (12, 12), (13, 12), (2, 1), (2, 5)]


def data(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 3.0, rng.normal(size=n) - 2.0


def dense(Z: np.ndarray, normalize: str | None, center: bool) -> np.ndarray:
    if normalize == "l2":
        Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    if normalize == "standard":
        Z = Z / Z.std(axis=0)
    return Z - Z.mean(axis=0) if center else Z


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("normalize", [None, "l2", "standard"])
@pytest.mark.parametrize("shape", SHAPES)
def test_spectrum_equals_the_singular_value_decomposition(shape, normalize, center):
    Z, y = data(*shape)
    if normalize == "l2" and shape == (2, 1):
        Z[1] *= -1  # rows of length one in one dimension are constant otherwise
    F = dense(Z, normalize, center)
    U, s, _ = np.linalg.svd(F, full_matrices=False)
    keep = s > 1e-9 * s[0]
    U, s = U[:, keep], s[keep]
    spectrum = Spectrum.of(Z, normalize=normalize, center=center)
    assert spectrum.primal == (shape[0] >= shape[1])
    assert spectrum.rank == keep.sum()
    assert_allclose(spectrum.eigenvalues, s**2, rtol=1e-11, atol=1e-14 * s[0] ** 2)
    # Signs of singular vectors are free, projectors are not.
    assert_allclose(spectrum.left @ spectrum.left.T, U @ U.T, atol=1e-10)
    target = y - y.mean() if center else y
    projection = spectrum.project(y)
    assert_allclose(np.abs(projection.p), np.abs(U.T @ target), atol=1e-10)
    assert_allclose(projection.total, target @ target, rtol=1e-13)
    assert_allclose(projection.r, np.sum((target - U @ (U.T @ target)) ** 2), atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_quantities_equal_the_normal_equations(shape):
    Z, y = data(*shape)
    spectrum = Spectrum.of(Z)
    F, target = dense(Z, None, True), y - y.mean()
    for alpha in (0.1, 3.0):
        hat = F @ np.linalg.solve(F.T @ F + alpha * np.eye(shape[1]), F.T)
        assert_allclose(spectrum.leverages([alpha])[:, 0], np.diag(hat) + 1 / shape[0], rtol=1e-9)
        error = np.sum((target - hat @ target) ** 2)
        assert_allclose(spectrum.squared_error(spectrum.project(y), alpha)[0], error, rtol=1e-9)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30)])
def test_project_features_gives_coordinates_in_embedding_space(shape):
    Z, _ = data(*shape)
    weights = np.random.default_rng(3).normal(size=(4, shape[0]))
    spectrum = Spectrum.of(Z)
    M = weights @ spectrum.matrix
    inner = M @ M.T
    C = spectrum.project_features(weights)
    assert_allclose(C @ C.T, inner, rtol=1e-9)


def test_rank_of_duplicated_and_constant_columns():
    Z, _ = data(50, 4)
    wide = np.hstack([Z, Z, np.full((50, 3), 7.1), 1e6 * Z[:, :1] + Z[:, 1:2]])
    spectrum = Spectrum.of(wide)
    assert spectrum.rank == 4
    assert spectrum.live == 9


@pytest.mark.parametrize("normalize", [None, "standard", "l2"])
def test_constant_embedding_has_an_empty_spectrum(normalize):
    spectrum = Spectrum.of(np.full((9, 3), 0.1), normalize=normalize)
    assert spectrum.rank == 0
    assert spectrum.left.shape == (9, 0)
    projection = spectrum.project(np.arange(9.0))
    assert projection.r == pytest.approx(60.0)


def test_badly_conditioned_embedding_keeps_what_float64_resolves():
    rng = np.random.default_rng(1)
    U, _ = np.linalg.qr(rng.normal(size=(60, 8)))
    V, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    s = 10.0 ** -np.arange(8)  # condition 1e7, squared 1e14
    spectrum = Spectrum.of(U * s @ V.T, center=False)
    resolved = s > 3e-7
    assert spectrum.rank >= resolved.sum()
    # A Gram matrix leaves an absolute error of eps·σ_max in each eigenvalue.
    assert_allclose(spectrum.eigenvalues[: resolved.sum()], s[resolved] ** 2, atol=1e-15, rtol=1e-12)


def test_evidence_search_finds_the_maximum_of_a_fine_grid():
    for shape in [(40, 7), (7, 40), (80, 79), (300, 50)]:
        for seed in range(1, 5):
            Z, noise = data(*shape, seed=seed)
            y = Z @ np.random.default_rng(seed).normal(size=shape[1]) + seed * noise
            spectrum = Spectrum.of(Z)
            p = spectrum.project(y)
            freedom = spectrum.freedom if spectrum.saturated else spectrum.n
            arguments = (spectrum.eigenvalues, p.p**2, p.r, spectrum.n, freedom)
            best, t = maximise_evidence(*arguments)
            grid = log_evidence(np.linspace(-40, 40, 8001), *arguments)
            assert best >= grid.max() - 1e-11
            assert best == pytest.approx(grid.max(), abs=1e-5)
            assert np.isinf(t) or log_evidence(np.log(t), *arguments)[0] == pytest.approx(best, abs=1e-12)


def test_spectra_decompose_once_per_normalisation_and_leave_the_input_alone():
    Z, _ = data(20, 5)
    Z.setflags(write=False)
    spectra = Spectra(Z)
    assert spectra("l2") is spectra("l2")
    assert spectra("l2") is not spectra("standard")
    assert spectra(None, center=False) is not spectra(None)
    assert len(spectra) == 20
    assert spectra.shape == (20, 5)
    assert_array_equal(Z, data(20, 5)[0])


@pytest.mark.parametrize(
    ("Z", "message"),
    [
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), r"contains NaN \(first at row 1, column 0\)"),
        (np.array([[1.0, 2.0], [1.0, -np.inf]]), r"contains inf \(first at row 1, column 1\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((1, 3)), "1 sample"),
        (np.zeros((5, 0)), r"0 feature\(s\)"),
        (np.full((3, 2), 1e200), r"1.0e\+200"),
        (np.array([["a", "b"], ["c", "d"]]), "no numbers"),
    ],
)
def test_bad_embeddings_are_refused_in_a_sentence(Z, message):
    with pytest.raises(EmbeddingError, match=message):
        Spectra(Z)


def test_unknown_normalisation_and_wrong_target_length():
    Z, y = data(6, 2)
    with pytest.raises(ValueError, match="normalize is 'rows'"):
        Spectrum.of(Z, normalize="rows")  # type: ignore[arg-type]
    with pytest.raises(EmbeddingError, match="6 rows"):
        Spectrum.of(Z).project(y[:5])
