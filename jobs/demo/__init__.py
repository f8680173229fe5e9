"""The demo model that ships with the project: its data, its training, and how well it does."""

from pathlib import Path

MODEL_DIRECTORY = Path(__file__).parent / "model"
PROMPTS_FILE = Path(__file__).parent / "prompts.txt"
