"""An async actor that lets many callers meet, awaited references, and asyncio on the driver's side."""

import asyncio

import ray


@ray.remote
class Barrier:
    def __init__(self, parties):
        self.parties = parties
        self.arrived = 0
        self.opened = None

    async def arrive(self, name):
        if self.opened is None:
            self.opened = asyncio.Event()
        self.arrived += 1
        if self.arrived == self.parties:
            self.opened.set()
        await self.opened.wait()  # all parties are inside this method at the same time
        return name


@ray.remote(max_concurrency=4)
class Threaded:
    def __init__(self, barrier):
        self.barrier = barrier

    def meet(self, name):
        return ray.get(self.barrier.arrive.remote(name))


@ray.remote
def double(x):
    return 2 * x


async def main():
    barrier = Barrier.options(num_cpus=0).remote(6)
    threaded = Threaded.options(num_cpus=0).remote(barrier)
    met = await asyncio.gather(
        *[barrier.arrive.remote(f"async-{i}") for i in range(3)],
        *[threaded.meet.remote(f"thread-{i}") for i in range(3)],
    )
    print(sorted(met))
    print(await double.remote(21), await asyncio.wait_for(double.remote(4), timeout=30))
    print([f.result() for f in [double.remote(i).future() for i in range(3)]])


ray.init(num_cpus=2, log_to_driver=False)
asyncio.run(main())
