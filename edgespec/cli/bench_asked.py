"""What `edgespec bench` is asked to measure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.bench import records
from edgespec.bench.plan import MIXED, cold_questions, warm_plan
from edgespec.bench.suite import Question
from edgespec.bench.warm import WarmPlan
from edgespec.errors import UsageError
from edgespec.types import SamplingParams


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured, and how: `plan` is a warm one, or the questions as they are."""

    suite: str
    categories: tuple[str, ...]
    plan: WarmPlan | tuple[Question, ...]
    sampling: SamplingParams
    max_tokens: int
    ways: tuple[str, ...]
    forms: Mapping[str, Path]

    @staticmethod
    def of(
        values: Mapping[str, Any],
        sampling: SamplingParams,
        ways: tuple[str, ...],
        forms: Mapping[str, Path],
    ) -> Asked:
        """What a command's options ask for; raises UsageError."""
        suite, warm, limit, others = (values[name] for name in ("suite", "warm", "limit", "others"))
        if limit is not None and limit < 1:
            raise UsageError(f"--limit is {limit}", "give at least 1")
        if others is not None and warm is None:
            raise UsageError("--others is for --warm unseen", "leave it out")
        named = (values["categories"] or "").split(",")
        categories = tuple(name.strip() for name in named if name.strip())
        plan: WarmPlan | tuple[Question, ...]
        if warm is None:
            plan = cold_questions(suite or MIXED, categories, limit)
        else:
            plan = warm_plan(warm, suite, categories, limit, others)
        if warm == "unseen":
            ways = (*ways, "without-database")
        names = tuple(dict.fromkeys(ways))
        asked = Asked(
            suite or MIXED, categories, plan, sampling, values["max_tokens"], names, forms
        )
        twice = [
            name
            for name, count in Counter(each.id for each in asked.questions).items()
            if count > 1
        ]
        if twice:
            raise UsageError(
                f"two questions are called {twice[0]}", "give each its own question_id"
            )
        return asked

    @property
    def questions(self) -> tuple[Question, ...]:
        """What is measured."""
        return self.plan.questions if isinstance(self.plan, WarmPlan) else self.plan

    @property
    def form(self) -> records.Asked:
        """What is written down of it."""
        plan = self.plan if isinstance(self.plan, WarmPlan) else None
        return records.Asked(
            suite=self.suite,
            warm=plan.warm if plan else None,
            num_earlier=len(plan.earlier) if plan else 0,
            categories=self.categories,
            max_tokens=self.max_tokens,
            temperature=self.sampling.temperature,
            seed=self.sampling.seed,
            sampling=dataclasses.asdict(self.sampling),
        )
