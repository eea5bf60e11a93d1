"""A viewer on a free port."""

import contextlib

import pytest

from viewer.session import Address, Session


@pytest.fixture
def serve(viewed, tmp_path):
    """`serve(host, origins)` serves on a free port until the test ends, and returns the session."""
    with contextlib.ExitStack() as stack:

        def start(host="127.0.0.1", origins=()):
            logs = tmp_path / "logs"
            session = Session(viewed.scene, viewed.model, None, logs, Address(host, 0, origins))
            stack.callback(session.close)
            return session

        yield start
