"""Random plans give the rows that plain Python makes, however they are run.

`HYPOTHESIS_PROFILE=long` looks for some minutes.
"""

from __future__ import annotations

import os

import plan_models
from hypothesis import HealthCheck, given, settings

FACTOR = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1


def checked(examples: int) -> settings:
    return settings(
        max_examples=examples * FACTOR,
        deadline=None,
        database=None,
        derandomize=FACTOR == 1,
        print_blob=FACTOR > 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@checked(100)
@given(plan_models.plans())
def test_plans_give_what_plain_python_makes(plan: plan_models.Plan) -> None:
    plan_models.check_ways(plan, plan_models.ways(plan.dataset))
