"""A gang of workers in the bundles of a placement group, with a child in the group and one outside."""

import ray
from ray.util.placement_group import (
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

ray.init(num_cpus=4)


@ray.remote(num_cpus=1)
class Worker:
    def __init__(self, rank: int) -> None:
        self.rank = rank

    def step(self, numbers: list[int]) -> int:
        return self.rank + sum(numbers)


@ray.remote(num_cpus=0)
def where():
    return get_current_placement_group()


@ray.remote(num_cpus=1)
def parent():
    return ray.get([where.remote(), where.options(scheduling_strategy="DEFAULT").remote()])


group = placement_group([{"CPU": 1}] * 3, strategy="PACK", name="gang")
assert ray.get(group.ready(), timeout=60) == group
assert group.wait(timeout_seconds=60)
workers = [
    Worker.options(
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=rank)
    ).remote(rank)
    for rank in range(2)
]
sums = ray.get([worker.step.remote([10, 20]) for worker in workers], timeout=60)
strategy = PlacementGroupSchedulingStrategy(group, 2, placement_group_capture_child_tasks=True)
inside, outside = ray.get(parent.options(scheduling_strategy=strategy).remote(), timeout=60)
free = ray.available_resources()["CPU"]
print("sums:", sums, "captured:", inside == group, "outside:", outside, "state:", placement_group_table(group)["state"])
assert (sums, inside, outside, free) == ([30, 31], group, None, 1.0)
assert ray.util.get_placement_group("gang") == group

remove_placement_group(group)
try:
    while True:
        ray.get(workers[0].step.remote([]), timeout=60)
except ray.exceptions.ActorDiedError:
    print("removed:", placement_group_table(group)["state"])
try:
    placement_group([{"CPU": 1}], strategy="SIDEWAYS")
except ValueError:
    print("no such strategy")
