"""A batch on the best split of some GPUs, simulated with the node losses that were given and without any."""

from dataclasses import replace

from jobs.predict.capacity import Split, nodes_of, spec_of
from jobs.predict.profile import Profile
from jobs.predict.scenario import Scenario
from jobs.predict.simulation import HOUR_S, simulate


def batch_of(split: Split, profile: Profile, num_gpus: int, num_videos: int, loss_hours: float | None) -> Scenario:
    """Videos of one size by one method, on as many gangs as fit."""
    return Scenario(
        spec=spec_of(split.setup.layout),
        gangs=split.gangs,
        nodes=nodes_of(num_gpus, profile.ranks_per_node),
        seconds=[split.parts.total] * num_videos,
        load_s=profile.rates.load_s,
        loss_hours=loss_hours,
    )


def batch_columns(scenario: Scenario) -> dict[str, object]:
    """Hours of the batch, the nodes that it lost, and what part of its time these took."""
    tally = simulate(scenario)
    columns: dict[str, object] = {"batch h": round(tally.seconds / HOUR_S, 3)}
    if scenario.loss_hours is None:
        return columns
    undisturbed_s = simulate(replace(scenario, loss_hours=None)).seconds
    return columns | {"lost nodes": tally.node_losses, "overhead": round(tally.seconds / undisturbed_s - 1, 4)}
