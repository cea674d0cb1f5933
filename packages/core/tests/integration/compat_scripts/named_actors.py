"""Named actors: found by name from tasks, shared by get_if_exists, killed, and waited for."""

import ray
from ray.exceptions import RayActorError

ray.init(namespace="shop", num_cpus=2)


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, amount=1):
        self.value += amount
        return self.value


@ray.remote
def add_by_name(name):
    return ray.get(ray.get_actor(name).add.remote())


counter = Counter.options(name="counter", lifetime="detached").remote(10)
ray.get(counter.__ray_ready__.remote())
again = Counter.options(name="counter", get_if_exists=True).remote(99)
assert again == counter
print("values:", sorted(ray.get([add_by_name.remote("counter") for _ in range(4)])))
print("named:", ray.util.list_named_actors())
assert ray.get_actor("counter", namespace="shop") == counter
print("called:", ray.get(counter.__ray_call__.remote(lambda self, factor: self.value * factor, 2)))
try:
    Counter.options(name="counter").remote()
except ValueError as error:
    print("taken:", isinstance(error, ray.exceptions.RayError))
ray.kill(counter)
while True:  # a call that was on its way may still succeed
    try:
        ray.get(counter.add.remote(), timeout=30)
    except RayActorError:
        print("killed")
        break
gentle = Counter.remote()
ray.get(gentle.add.remote())
finished, _ = ray.wait([gentle.__ray_terminate__.remote()], timeout=30)
print("terminated:", len(finished))
try:
    ray.get_actor("nobody")
except ValueError:
    print("nobody")
