"""What `edgespec bench` is asked to measure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.bench import records
from edgespec.bench.peers import PeerSpec
from edgespec.bench.plan import MIXED, cold_questions, warm_plan
from edgespec.bench.suite import Question
from edgespec.bench.warm import Step, WarmPlan
from edgespec.errors import UsageError
from edgespec.types import SamplingParams


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured, and how."""

    suite: str
    categories: tuple[str, ...]
    plan: WarmPlan
    sampling: SamplingParams
    max_tokens: int
    ways: tuple[str, ...]
    forms: Mapping[str, Path]
    peers: tuple[PeerSpec, ...]

    @staticmethod
    def of(values: Mapping[str, Any], sampling: SamplingParams) -> Asked:
        """What a command's options ask for; raises UsageError."""
        suite, warm, limit, others = (values[name] for name in ("suite", "warm", "limit", "others"))
        if limit is not None and limit < 1:
            raise UsageError(f"--limit is {limit}", "give at least 1")
        if others is not None and warm is None:
            raise UsageError("--others is for --warm unseen", "leave it out")
        named = (values["categories"] or "").split(",")
        categories = tuple(name.strip() for name in named if name.strip())
        if warm is None:
            questions = cold_questions(suite or MIXED, categories, limit)
            plan = WarmPlan(None, (Step("measure", questions),))
        else:
            plan = warm_plan(warm, suite, categories, limit, others)
        ways = (*values["ways"], *values["without"], *values["baseline"])
        if warm == "unseen":
            ways = (*ways, "without-database")
        asked = Asked(
            suite or MIXED,
            categories,
            plan,
            sampling,
            values["max_tokens"],
            tuple(dict.fromkeys(ways)),
            values["forms"],
            values["peers"],
        )
        [(name, count)] = Counter(each.id for each in asked.questions).most_common(1)
        if count > 1:
            raise UsageError(f"two questions are called {name}", "give each an id of its own")
        taken = {*asked.ways, *asked.forms} & {peer.name for peer in asked.peers}
        if taken:
            raise UsageError(f"two ways are called {taken.pop()}", "give each its own name")
        return asked

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is measured."""
        return self.plan.questions

    @property
    def form(self) -> records.Asked:
        """What is written down of it."""
        return records.Asked(
            suite=self.suite,
            warm=self.plan.warm,
            num_earlier=len(self.plan.earlier),
            categories=self.categories,
            max_tokens=self.max_tokens,
            temperature=self.sampling.temperature,
            seed=self.sampling.seed,
            sampling=dataclasses.asdict(self.sampling),
        )
