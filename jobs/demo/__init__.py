"""The demo models that ship with the project: their data, their training, and how well they do."""

from pathlib import Path

PROMPTS_FILE = Path(__file__).parent / "prompts.txt"
