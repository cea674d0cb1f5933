"""Producers and consumers around a queue, an actor pool and a process pool."""

import ray
from ray.util import ActorPool
from ray.util.multiprocessing import Pool
from ray.util.queue import Empty, Queue


@ray.remote
def produce(queue, start, count):
    for i in range(start, start + count):
        queue.put(i)
    return count


@ray.remote
def consume(queue):
    total = 0
    while (item := queue.get(timeout=30)) is not None:
        total += item
    return total


@ray.remote
class Squarer:
    def square(self, x):
        return x * x


def power(base, exponent):
    return base**exponent


def main():
    ray.init(num_cpus=2)
    queue = Queue(maxsize=4)
    consumers = [consume.options(num_cpus=0).remote(queue) for _ in range(2)]
    ray.get([produce.options(num_cpus=0).remote(queue, start, 10) for start in (0, 10)])
    for _ in consumers:
        queue.put(None)
    print("consumed:", sum(ray.get(consumers)))
    try:
        queue.get(block=False)
    except Empty:
        print("empty:", queue.empty(), queue.qsize())
    queue.shutdown()

    pool = ActorPool([Squarer.options(num_cpus=0).remote() for _ in range(2)])
    print("pool:", list(pool.map(lambda actor, value: actor.square.remote(value), range(6))))

    with Pool(processes=2, ray_remote_args={"num_cpus": 0}) as processes:
        print("starmap:", processes.starmap(power, [(2, 3), (3, 2)]))
        print("imap:", sorted(processes.imap_unordered(abs, [-1, -2, -3], chunksize=2)))


if __name__ == "__main__":
    main()
