"""The places of the repository's files."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CONFIGS = ROOT / "configs"
LAUNCH = ROOT / "launch"
