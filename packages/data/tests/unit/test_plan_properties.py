"""Random plans give the rows that plain Python makes, however they are run.

`HYPOTHESIS_PROFILE=long` looks for some minutes.
"""

from __future__ import annotations

import plan_models
from hypothesis import given

@plan_models.checked(100)
@given(plan_models.plans())
def test_plans_give_what_plain_python_makes(plan: plan_models.Plan) -> None:
    plan_models.check_ways(plan, plan_models.ways(plan.dataset))
