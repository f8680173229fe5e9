"""How a batch has its gangs outlive it."""

from dataclasses import dataclass

CLAIM_S = 40.0


@dataclass(frozen=True, kw_only=True)
class KeepWarm:
    """How a batch keeps its gangs, and finds those of others.

    Gangs of one `key` have loaded the same; it may be read in their keepers' names. They outlive the batch for
    `lease_s`. Where several batches want one, each gets time by its `priority`. A batch that is silent for `claim_s`
    has lost its turn.
    """

    key: str
    lease_s: float
    priority: float = 1.0
    claim_s: float = CLAIM_S
