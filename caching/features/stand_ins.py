"""What stands in for modules of a model, for as many passes as there are: each answers for its own modules."""

from collections.abc import Callable
from typing import Any, Protocol

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

HOOK = "resca"
Forward = Callable[..., Any]  # a module's own, of any signature


class StandIn(Protocol):
    """Answers in place of one module in one pass."""

    def answer(self, forward: Forward, module: Any, *args: Any, **kwargs: Any) -> Any:
        """What the module would give; `forward` computes it."""
        ...


class StandIns:
    """The stand-ins of one pass. `take_turns` before its blocks run, and `leave` at its end."""

    def __init__(self) -> None:
        self._places: list[tuple[Place, nn.Module, StandIn]] = []

    def add(self, module: nn.Module, stand_in: StandIn) -> None:
        registry = HookRegistry.check_if_exists_or_initialize(module)
        place = registry.get_hook(HOOK)
        if not isinstance(place, Place):
            registry.register_hook(place := Place(), HOOK)
        place.passes += 1
        self._places.append((place, module, stand_in))

    def take_turns(self) -> None:
        """From now on these stand in, and not those of another pass."""
        for place, _, stand_in in self._places:
            place.at_turn = stand_in

    def leave(self) -> None:
        """Leave the modules as they were, once no pass has a stand-in for them."""
        for place, module, _ in self._places:
            place.at_turn = None
            place.passes -= 1
            if place.passes == 0:
                HookRegistry.check_if_exists_or_initialize(module).remove_hook(HOOK)
        self._places = []


class Place(ModelHook):
    """A module where stand-ins answer by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.at_turn: StandIn | None = None

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Called in place of the module's forward."""
        forward: Any = self.fn_ref.original_forward  # set by the registry of `diffusers`, which declares it as None
        return (
            forward(*args, **kwargs) if self.at_turn is None else self.at_turn.answer(forward, module, *args, **kwargs)
        )
