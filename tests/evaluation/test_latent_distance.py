import numpy as np
import pytest
from numpy.typing import NDArray

from rlhfctl.evaluation.latent_distance import StateDistribution, held_out_distances


def shrunk_covariance(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ledoit and Wolf 2004, section 3, term by term, with matrices of full size."""
    count, width = states.shape
    centred = states - states.mean(axis=0)
    sample = centred.T @ centred / count

    def norm(matrix: NDArray[np.float64]) -> float:
        return float(np.square(matrix).sum() / width)

    target = np.trace(sample) / width * np.eye(width)
    d = norm(sample - target)
    b = sum(norm(np.outer(row, row) - sample) for row in centred) / count**2
    weight = min(b, d) / d
    shrunk: NDArray[np.float64] = weight * target + (1 - weight) * sample
    return shrunk


@pytest.mark.parametrize(("count", "width"), [(40, 6), (12, 30)])
def test_distances_are_those_of_the_shrunk_covariance(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(count, width)) * np.linspace(0.1, 3, width) + 5
    others = rng.normal(size=(7, width)) * 2
    inverse = np.linalg.inv(shrunk_covariance(states))
    centred = others - states.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", centred, inverse, centred) / width)
    np.testing.assert_allclose(StateDistribution.of(states).distances(others), expected, rtol=1e-9)


def test_states_of_the_same_policy_are_as_far_as_the_references_own() -> None:
    """With fewer prompts than dimensions; states that the estimate has seen would be nearer."""
    rng = np.random.default_rng(1)
    prompts, width = 96, 128
    scale = np.geomspace(0.03, 3, width)
    own, first, second = (scale * rng.normal(size=(prompts, width)) for _ in range(3))
    reference, later = own + first, own + second
    own_distances = held_out_distances(reference, reference)
    ratio = held_out_distances(reference, later).mean() / own_distances.mean()
    assert ratio == pytest.approx(1.0, abs=0.02)
    seen = StateDistribution.of(reference).distances(reference)
    assert seen.mean() < 0.97 * own_distances.mean()
    moved = later + 1.0
    assert held_out_distances(reference, moved).mean() > own_distances.mean() * 1.03


def test_states_without_variation_have_a_distance() -> None:
    still = np.ones((8, 3))
    assert held_out_distances(still, still).tolist() == [0.0] * 8
    far = held_out_distances(still, still + 1.0)
    assert (far > 1e6).all() and np.isfinite(far).all()


def test_states_in_few_directions_have_finite_distances_to_all() -> None:
    """Two kinds of states alone, whose covariance nothing shrinks."""
    rng = np.random.default_rng(2)
    two = rng.normal(size=(2, 16))
    reference = two[[0, 1, 0, 1, 0, 1, 0, 1]]
    distances = StateDistribution.of(reference).distances(rng.normal(size=(5, 16)))
    assert np.isfinite(distances).all() and (distances > 100).all()
