"""Makes the shared modules of tests/, of tests/frontend and of this folder importable."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "frontend")]
