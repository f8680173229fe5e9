"""The options of the service by HTTP. They cost nothing to import."""

from dataclasses import dataclass

from jobs.options.batch import BatchOptions
from jobs.options.shared import File


@dataclass(frozen=True, kw_only=True)
class ServeOptions(BatchOptions):
    """Take videos by HTTP, as OpenAI's video API does, and render them; what was accepted is in the ledger of --out."""

    host: str = "127.0.0.1"
    """Address to listen on; by default none but this machine can reach it."""
    port: int = 8000
    """Port to listen on."""
    token_file: File = None
    """File with the token that every request must bring; without it, RESCA_TOKEN in the environment."""
    queue: int = 1000
    """Videos that may wait or run; further ones are refused with 429 until there is room."""


@dataclass(frozen=True, kw_only=True)
class ServeDriverOptions(ServeOptions):
    """Render what `resca serve` takes, which starts this by itself; it ends when its standard input, a pipe, does."""
