"""Puts the tiny stages into every Python process that finds this on its path."""

import os
import sys
from pathlib import Path

if "TINY" in os.environ:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from tests.cli.tiny import install

    install()
