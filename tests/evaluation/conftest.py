"""Fixtures of several tests of the evaluation."""

import pytest

from tests.evaluation.true_cube import true_cube_views


@pytest.fixture(scope="session")
def cube_views():
    """Views of the cube with true depth. Nobody may change them."""
    return true_cube_views()
