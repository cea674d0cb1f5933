"""Sums numbers pairwise in a tree of tasks, passing references rather than values, and by nested tasks."""

import ray
from ray import ObjectRef

ray.init(num_cpus=2)


@ray.remote
def add(left: int, right: int) -> int:
    return left + right


@ray.remote
def leaf(value: int) -> int:
    return value * value


@ray.remote
def nested_sum(values):
    if len(values) == 1:
        return ray.get(leaf.remote(values[0]))
    middle = len(values) // 2
    return sum(ray.get([nested_sum.remote(values[:middle]), nested_sum.remote(values[middle:])]))


def reduce(refs: list[ObjectRef]) -> ObjectRef:
    while len(refs) > 1:
        refs = [add.remote(*refs[i : i + 2]) if i + 1 < len(refs) else refs[i] for i in range(0, len(refs), 2)]
    return refs[0]


numbers = list(range(37))
in_tree = ray.get(reduce([leaf.remote(n) for n in numbers]), timeout=60)
in_depth = ray.get(nested_sum.remote(numbers[:9]), timeout=60)
print("tree:", in_tree, "depth:", in_depth)
assert in_tree == sum(n * n for n in numbers)
assert in_depth == sum(n * n for n in numbers[:9])
