"""How an experiment carries out its runs, from their folders alone."""
import numpy as np
import pytest

from baselines import MODELS
from experiments import table1


def test_the_papers_table_is_quoted_right():
    """Its means are those of its scenes, to the rounding of its figures."""
    assert set(table1.PAPER) == set(table1.NAMES) == set(MODELS)
    for row_ in table1.PAPER.values():
        assert np.mean([psnr for psnr, _ in row_[:4]]) == pytest.approx(row_[4][0], abs=0.011)
        assert np.mean([ssim for _, ssim in row_[:4]]) == pytest.approx(row_[4][1], abs=0.011)
