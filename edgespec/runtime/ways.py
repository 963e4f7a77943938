"""Ways to answer with one target: plainly, as the product does, without parts of it, as others do.

Each way but the product's is a planning of its own: drafters that learn by themselves, budgets,
costs of passes, all of which begin as the product's are when the ways are built. Weights are
shared, except of a model that drafts in another form.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgespec.drafters.database import DatabaseDrafter, TokenCursor, TokenIndex
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.planning.baselines import (
    NUM_FOLLOWING,
    Everything,
    FirstToSpeak,
    PromptLookup,
    Unlearning,
)
from edgespec.planning.planner import THE_RULE, Planner, Rule
from edgespec.types import PLAIN, PRODUCT

if TYPE_CHECKING:
    from edgespec.engine.engine import Engine
    from edgespec.protocols import Drafter
    from edgespec.runtime.drafters import Drafters
    from edgespec.runtime.form import Form

PARTS = {
    "context": "look-ups in the conversation",
    "database": "look-ups in what is remembered",
    "model": "a model that drafts",
    "grammar": "tokens that a constraint forces",
    "trim": "the trimmed form of the model that drafts, nor what it was trained",
    "training": "what the model that drafts was trained",
    "estimates": "learning how often guesses are kept",
    "budget": "a bound on what the model may cost",
}
"""What can be left out, one at a time."""

LENGTHS = (2, 4, 8)
"""Fixed lengths of a draft of the model."""

MOST_DRAFT = 8
"""Tokens of a draft at most, of ways that know no costs."""

BASELINES = {
    "lookup": "prompt lookup: what followed the last 3 tokens before, 10 tokens of it",
    **{f"fixed-{count}": f"drafts of {count} tokens, all by the model" for count in LENGTHS},
    "hierarchy": "hierarchy drafting: what the conversation says, else what is remembered, up to "
    f"{MOST_DRAFT} tokens",
    "no-planner": f"all drafters, up to {MOST_DRAFT} tokens whatever they cost",
}
"""What others do."""

ABOUT = {
    PLAIN: "one token a pass",
    PRODUCT: "the product as it is",
    **{f"without-{part}": f"the product without {what}" for part, what in PARTS.items()},
    **BASELINES,
}
"""All ways by name, with a sentence for people."""


class EngineWays:
    """Implements `edgespec.bench.ways.Ways` for an engine whose planner is the product's."""

    def __init__(
        self,
        engine: Engine,
        drafters: Drafters,
        names: Sequence[str],
        forms: Mapping[str, Form],
        cleanup: contextlib.ExitStack,
    ) -> None:
        """Build ways of ABOUT by `names`; with each of `forms` the product drafts as well.

        A way that makes no sense here, or for which memory is short, is left out: `left_out` says
        why, a line for each. `cleanup` frees what was opened.
        """
        self.about: dict[str, str] = {}
        self.left_out: list[str] = []
        self._engine = engine
        self._product = engine.planner
        self._drafters = drafters
        self._cleanup = cleanup
        self._planners: dict[str, Planner] = {}
        for name in dict.fromkeys((PLAIN, *names)):
            self._try(name, ABOUT[name], None)
        for name, form in forms.items():
            self._try(name, f"the product with {form.running.name} as drafter", form)

    def use(self, name: str) -> None:
        """Have answers drafted this way from the next one on; only while none is open."""
        self._engine.plan_with(self._planners[name])

    def _try(self, name: str, about: str, form: Form | None) -> None:
        with contextlib.ExitStack() as opened:
            try:
                self._planners[name] = self._planner(name, form, opened)
            except EdgeSpecError as error:
                self.left_out.append(f"{name}: {error.problem}")
                return
            self.about[name] = about
            self._cleanup.push(opened.pop_all())

    def _planner(self, name: str, form: Form | None, opened: contextlib.ExitStack) -> Planner:
        """The planning of a way; raises EdgeSpecError where it makes no sense here."""
        if form is not None:
            return self._planning(self._with_form(form, opened))
        if name == PLAIN:
            return self._planning([])
        if name == PRODUCT:
            return self._product
        part = name.removeprefix("without-")
        return self._without(part, opened) if part in PARTS else self._baseline(name, opened)

    def _planning(self, drafters: Sequence[Drafter], rule: Rule = THE_RULE) -> Planner:
        costs = copy.deepcopy(self._product.costs)
        return Planner(drafters, costs, time.perf_counter, rule)

    def _without(self, part: str, opened: contextlib.ExitStack) -> Planner:
        """The product without a part of it."""
        if part in ("trim", "training"):
            return self._planning(self._with_form(self._before(part), opened))
        drafters = self._drafters.another(opened, knows=part != "estimates")
        if part == "estimates":
            return self._planning([Unlearning(each) for each in drafters.values()])
        if part == "budget":
            if self._drafters.bound is None:
                raise UsageError("no drafter costs time")
            return self._planning(list(drafters.values()), Rule(has_budgets=False))
        if part not in drafters:
            raise UsageError(f"there is no {part} drafter")
        del drafters[part]
        return self._planning(list(drafters.values()))

    def _before(self, made: str) -> Form:
        """The form of the model that drafts before it was trimmed, or trained."""
        form = self._drafters.form
        is_made = form is not None and (form.trimmed if made == "trim" else form.merged) is not None
        if form is None or not is_made:
            kind = "in a trimmed form" if made == "trim" else "that was trained"
            raise UsageError(f"no model drafts {kind}")
        return dataclasses.replace(
            form, merged=None, trimmed=None if made == "trim" else form.trimmed
        )

    def _with_form(self, form: Form, opened: contextlib.ExitStack) -> list[Drafter]:
        """The product's drafters, the model in another form."""
        from edgespec.runtime.drafters import MODEL, is_room_beside
        from edgespec.runtime.model_drafter import open_model_drafter

        if not is_room_beside(form):
            raise UsageError(f"there is no memory for {form.describe()} besides")
        model = open_model_drafter(form, self._drafters.target, opened).drafter
        drafters = self._drafters.another(opened)
        drafters[MODEL] = model
        return list(drafters.values())

    def _baseline(self, name: str, opened: contextlib.ExitStack) -> Planner:
        """What others do."""
        if name == "lookup":
            return self._planning([PromptLookup()], Rule(Everything, NUM_FOLLOWING))
        drafters = self._drafters.another(opened)
        if name == "no-planner":
            return self._planning(list(drafters.values()), Rule(Everything, MOST_DRAFT, False))
        if name == "hierarchy":
            context = [drafters["context"]] if "context" in drafters else []
            hierarchy = FirstToSpeak([*context, *self._tiers()])
            return self._planning([hierarchy], Rule(Everything, MOST_DRAFT))
        if "model" not in drafters:
            raise UsageError("no model drafts")
        length = int(name.removeprefix("fixed-"))
        return self._planning([drafters["model"]], Rule(Everything, length, False))

    def _tiers(self) -> list[DatabaseDrafter]:
        """A drafter for each tier of the database, if there is one."""
        tiers_of = self._drafters.tiers_of
        if tiers_of is None:
            return []

        def first(owner: str) -> Sequence[TokenIndex]:
            return tiers_of(owner)[:1]

        def second(owner: str) -> Sequence[TokenIndex]:
            return (_Nothing(), *tiers_of(owner)[1:])

        return [DatabaseDrafter(tiers(""), tiers) for tiers in (first, second)]


class _Nothing:
    """Implements `edgespec.drafters.database.TokenIndex`: nothing is recorded."""

    def lookup(self, suffix: Sequence[int]) -> TokenCursor | None:
        return None
