"""Puts tests/support on the path of a tool that runs as a script."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))
