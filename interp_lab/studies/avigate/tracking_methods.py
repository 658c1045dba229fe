"""A tracker's methods on the module that it tracks, for scripts that call them there.

Scripts of the original tool say `model.avigate_fusion.enable_gate_tracking()`. If asked, the
module gets a class of its own, derived from the one it had, that hands these names on to the
tracker. Nothing is added to the module itself: its state dict and its forward are what they were,
and a copy or a pickle of it is one of the class that it had, without tracker and hooks.
"""

from typing import Any, cast

from torch import nn

from interp_lab.errors import ConfigError

METHODS = (
    "enable_gate_tracking",
    "disable_gate_tracking",
    "set_current_sample_id",
    "get_gate_statistics",
    "print_gate_summary",
    "save_gate_analysis",
    "compare_samples_gates",
)
ATTRIBUTES = ("gate_history", "track_gates", "current_sample_id")
# The name under which such a class keeps its tracker.
TRACKER = "_interp_lab_tracker"
# Where a module keeps its hooks.
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called")


def tracker_on(module: Any) -> Any:
    """Return the tracker whose methods a module has.

    Raises:
        ConfigError: if it has none.
    """
    found = getattr(type(module), TRACKER, None)
    if found is None:
        raise ConfigError(
            f"{type(module).__name__}: no tracker's methods are on this module; give the tracker, "
            "or make it with track_gates(module, ..., install=True)"
        )
    return found


def install(module: nn.Module, tracker: Any) -> None:
    """Let a module answer to the tracker's names; `uninstall` takes them off again.

    Raises:
        ConfigError: if the module has something of such a name, or its class takes no subclass.
    """
    taken = [name for name in (*METHODS, *ATTRIBUTES) if hasattr(module, name)]
    if taken:
        raise ConfigError(
            f"install: {type(module).__name__} has {', '.join(taken)} of its own; leave out "
            "install=True and call the tracker's methods"
        )
    own = type(module)
    names: dict[str, Any] = {name: getattr(tracker, name) for name in METHODS}
    names = {name: _handed_on(method) for name, method in names.items()}
    names |= {
        "gate_history": property(lambda _: tracker.gate_history),
        "track_gates": property(lambda _: tracker.track_gates),
        "current_sample_id": property(lambda _: _one(tracker.current_sample_id)),
        TRACKER: tracker,
        "__reduce_ex__": lambda self, protocol: _as_it_was(self, own, tracker),
        "__module__": own.__module__,
        "__qualname__": own.__qualname__,
        "__doc__": own.__doc__,
    }
    try:
        # Of the same metaclass, whichever it is.
        module.__class__ = cast(Any, type(own))(own.__name__, (own,), names)
    except (TypeError, RuntimeError) as error:
        raise ConfigError(
            f"install: {own.__name__} takes no further methods ({error}); leave out install=True "
            "and call the tracker's methods"
        ) from error


def uninstall(module: nn.Module) -> None:
    """Take a tracker's methods off a module; it is of the class that it had before."""
    tracker_on(module)
    module.__class__ = type(module).__mro__[1]


def _handed_on(method: Any) -> Any:
    def call(self: nn.Module, *given: Any, **named: Any) -> Any:
        return method(*given, **named)

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


def _one(ids: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """Return the id of a batch of one as it was given; several as a tuple, none as None."""
    return ids[0] if len(ids) == 1 else ids or None


def _as_it_was(module: nn.Module, own: type, tracker: Any) -> tuple[Any, ...]:
    """Return what pickling and copying take: an object of its own class, without our hooks."""
    # Later protocols insist on the class that the object has now.
    make, given, *rest = super(type(module), module).__reduce_ex__(1)
    handles = {handle.id for handle in tracker.handles}
    if rest and isinstance(rest[0], dict):
        rest[0] = {
            name: _without(value, handles) if name in HOOKS else value
            for name, value in rest[0].items()
        }
    return make, tuple(own if part is type(module) else part for part in given), *rest


def _without(hooks: Any, handles: set[int]) -> Any:
    return type(hooks)((key, hook) for key, hook in hooks.items() if key not in handles)
