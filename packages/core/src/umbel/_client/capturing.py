"""Children that run in the placement group of the task or actor that submits them.

Wraps an engine's two ways of submitting that may be meant, from outside: it is loaded in processes in which something has
run in a group, and nothing else is asked whether it captures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from umbel._client import actor, context, remote_function
from umbel._model import options as option_model
from umbel._model import resources as resource_model

TEMPLATES_MAX = 1_000  # functions and classes that were captured, remembered with what they became
_MARK = "_umbel_captures"


def install(engine: Any) -> None:
    """From now on what this engine submits is captured where that is asked for. Idempotent."""
    if getattr(engine, _MARK, False):
        return
    setattr(engine, _MARK, True)
    capturing = _Capturing(engine)
    engine.submit_task = capturing.wrapped(engine.submit_task, capturing.task)
    engine.create_actor = capturing.wrapped(engine.create_actor, capturing.actor)


class _Capturing:
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._made: dict[tuple[int, option_model.InGroup], tuple[Any, Any]] = {}  # of templates, by id: (it, captured)
        self._bundles: dict[str, list[resource_model.ResourceSet]] = {}

    def wrapped(
        self, submit: Callable[..., Any], capture: Callable[[Any, option_model.InGroup], Any]
    ) -> Callable[..., Any]:
        def submitted(template: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            group = _group_for(template.options.scheduling_strategy)
            if group is not None:
                known = self._made.get((id(template), group))
                if known is None:
                    if len(self._made) >= TEMPLATES_MAX:
                        self._made.clear()
                    known = self._made[id(template), group] = template, capture(template, group)
                template = known[1]
            return submit(template, args, kwargs)

        return submitted

    def task(self, template: remote_function.TaskTemplate, group: option_model.InGroup) -> remote_function.TaskTemplate:
        options = template.options
        option_model.check_bundles(template.name, group, self._bundles_of(group), [options.resources])
        return remote_function.TaskTemplate(
            template.source, template.signature, options._replace(scheduling_strategy=group)
        )

    def actor(self, template: actor.ActorTemplate, group: option_model.InGroup) -> actor.ActorTemplate:
        options = template.options
        wanted = [options.running_resources, options.placement_resources]
        option_model.check_bundles(template.description.class_name, group, self._bundles_of(group), wanted)
        return actor.ActorTemplate(
            template.source, template.init_signature, options._replace(scheduling_strategy=group)
        )

    def _bundles_of(self, group: option_model.InGroup) -> Sequence[resource_model.ResourceSet]:
        found = self._bundles.get(group.group)
        if found is None:
            if len(self._bundles) >= TEMPLATES_MAX:
                self._bundles.clear()
            told = self._engine.groups.bundles(group.group)
            found = self._bundles[group.group] = [resource_model.ResourceSet.from_floats(one) for one in told]
        return found


def _group_for(strategy: object) -> option_model.InGroup | None:
    """The group to run in of what asks for this strategy, if that is the one of the running task or actor."""
    if strategy is None:
        wanted = option_model.InGroup("")
    elif isinstance(strategy, option_model.InGroup) and not strategy.group:
        wanted = strategy
    else:
        return None
    current = context.current_group()
    if current is None:
        return None
    captures = bool(current.captures) if wanted.captures is None else wanted.captures
    return option_model.InGroup(current.group, wanted.bundle_index, captures=True) if captures else None
