"""A record says what it was made with."""

import importlib.metadata
import platform

import rlhfctl
from rlhfctl.run.versions import installed_versions


def test_versions_are_those_installed():
    versions = installed_versions()
    assert versions["python"] == platform.python_version()
    assert versions["rlhfctl"] == rlhfctl.__version__
    assert versions["torch"] == importlib.metadata.version("torch")
