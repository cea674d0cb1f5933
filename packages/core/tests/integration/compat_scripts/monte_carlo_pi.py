"""Estimates pi by throwing darts, with an actor that collects the progress of all tasks."""

import math
import random
import sys

import ray


@ray.remote
class Progress:
    def __init__(self, total):
        self.total = total
        self.done = {}

    def report(self, task, count):
        self.done[task] = count

    def fraction(self):
        return sum(self.done.values()) / self.total


@ray.remote
def throw(task, count, progress):
    generator = random.Random(task)
    inside = 0
    for i in range(count):
        if math.hypot(generator.random(), generator.random()) <= 1.0:
            inside += 1
        if (i + 1) % 5_000 == 0:
            progress.report.remote(task, i + 1)
    ray.get(progress.report.remote(task, count))
    return inside


tasks, per_task = int(sys.argv[1]), int(sys.argv[2])
assert not ray.is_initialized()
ray.init()
assert ray.is_initialized()
progress = Progress.remote(tasks * per_task)
results = [throw.remote(task, per_task, progress) for task in range(tasks)]
inside = sum(ray.get(results))
pi = 4 * inside / (tasks * per_task)
print(f"pi is about {pi:.1f}; {ray.get(progress.fraction.remote()):.0%} done")
assert abs(pi - math.pi) < 0.1
ray.shutdown()
assert not ray.is_initialized()
