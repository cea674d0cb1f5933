"""Errors of tasks and actors as a program sees them, retries, cancellation, time-outs and cloudpickle."""

import os

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError, TaskCancelledError, WorkerCrashedError


class Mishap(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


@ray.remote
class Attempts:
    def __init__(self):
        self.count = 0

    def next(self):
        self.count += 1
        return self.count

    def die(self):
        os._exit(1)


@ray.remote
def fail(code):
    raise Mishap(code)


@ray.remote(max_retries=3, retry_exceptions=[Mishap])
def third_time_lucky(attempts):
    if ray.get(attempts.next.remote()) < 3:
        raise Mishap(1)
    return "lucky"


@ray.remote(max_retries=0)
def crash():
    os._exit(1)


@ray.remote
def forever(attempts):
    while True:
        ray.get(attempts.next.remote())


@ray.remote
def dependent(x):
    return x


ray.init(num_cpus=2, log_to_driver=False)
attempts = Attempts.options(num_cpus=0).remote()
try:
    ray.get(dependent.remote(fail.remote(7)))
except Mishap as error:
    print("mishap:", error.code, isinstance(error, RayTaskError), type(error.cause).__name__)
print("retried:", ray.get(third_time_lucky.remote(attempts)))
try:
    ray.get(crash.remote())
except WorkerCrashedError:
    print("crashed")
running = forever.remote(attempts)
try:
    ray.get(running, timeout=0.5)
except GetTimeoutError as error:
    print("timeout:", isinstance(error, TimeoutError))
ray.cancel(running)
try:
    ray.get(running, timeout=30)
except (TaskCancelledError, RayTaskError):
    print("cancelled")
try:
    ray.get(attempts.die.remote())
except RayActorError as error:
    print("died:", type(error).__name__)
function = ray.cloudpickle.loads(ray.cloudpickle.dumps(lambda: ray.put("by value")))
print("pickled:", ray.get(function()))
try:
    ray.get((ray.put(1),))
except ValueError:
    print("a tuple is no list")
