"""What the measures share on the controller: the way to a host, and one operation that converges it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
