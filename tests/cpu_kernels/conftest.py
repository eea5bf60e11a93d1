"""Kernels that were left out before are left out anew."""

import pytest

from cpu_kernels import written_for


@pytest.fixture(autouse=True)
def every_warning_is_the_first(monkeypatch):
    written_for.warn_left_out.cache_clear()
    yield
    written_for.warn_left_out.cache_clear()
