"""What steps change, taken down by name as `torch.nn.Module.state_dict` does; free of torch."""

from typing import Any, Protocol

StateDict = dict[str, Any]  # of tensors, numbers, strings, None, lists of these, and further such dictionaries


class Stateful(Protocol):
    """Something that steps change, and that can go on from a state which was taken down."""

    def state_dict(self) -> StateDict:
        """Everything that steps have changed. Tensors are the object's own, no copies."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Go on from a state of an object that was made with the same settings."""
        ...
