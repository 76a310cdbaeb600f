"""The sharing of work between the processes of a test session."""

import os

import pytest


@pytest.fixture(scope="module")
def costly():
    return object()


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_that_share_a_module_fixture_share_a_worker(costly, request):
    """pytest-xdist groups by the end of a test's name, which pytest 9.2 no longer lets it set."""
    assert request.node.nodeid.endswith("@test_conftest.py")
