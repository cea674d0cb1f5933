"""Random plans give the rows that plain Python makes, however they are run.

`HYPOTHESIS_PROFILE=long` looks for some minutes.
"""

from __future__ import annotations

from typing import Any

import plan_models
import pytest
from hypothesis import given


@pytest.mark.parametrize("step", plan_models.STEPS, ids=lambda step: step.__name__.strip("_"))
def test_each_operator_gives_what_plain_python_makes(step: Any) -> None:
    @plan_models.checked(8)
    @given(plan_models.plans(steps=[step], count_max=1))
    def holds(plan: plan_models.Plan) -> None:
        plan_models.check_ways(plan, plan_models.ways(plan.dataset))

    holds()


@plan_models.checked(40)
@given(plan_models.plans())
def test_plans_give_what_plain_python_makes(plan: plan_models.Plan) -> None:
    plan_models.check_ways(plan, plan_models.ways(plan.dataset))
