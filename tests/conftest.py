"""Settings and fixtures that every test shares."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
for helpers in ("reference", "ppo"):
    sys.path.insert(0, str(Path(__file__).parent / helpers))
