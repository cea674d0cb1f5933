"""Linear regression by asynchronous gradient descent: workers push gradients to a parameter server."""

import argparse
import random

import ray


@ray.remote
class ParameterServer:
    def __init__(self, dimensions, learning_rate):
        self.weights = [0.0] * dimensions
        self.learning_rate = learning_rate
        self.updates = 0

    def push(self, gradients):
        for gradient in gradients:
            self.weights = [w - self.learning_rate * g for w, g in zip(self.weights, gradient, strict=True)]
            self.updates += 1
        return self.weights

    def pull(self):
        return self.weights

    def update_count(self):
        return self.updates


@ray.remote
class Worker:
    def __init__(self, seed, truth):
        self.random = random.Random(seed)
        self.truth = truth

    def gradient(self, weights, batch_size=32):
        total = [0.0] * len(weights)
        for _ in range(batch_size):
            x = [self.random.gauss(0, 1) for _ in weights]
            error = sum((w - t) * v for w, t, v in zip(weights, self.truth, x, strict=True))
            total = [t + error * v / batch_size for t, v in zip(total, x, strict=True)]
        return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()

    ray.init(num_cpus=2)
    truth = [1.0, -2.0, 3.0]
    server = ParameterServer.options(num_cpus=0).remote(len(truth), 0.1)
    workers = [Worker.options(num_cpus=0).remote(seed, truth) for seed in range(options.workers)]

    # asynchronous: whoever is ready gets the newest weights
    weights = server.pull.remote()
    running = {worker.gradient.remote(weights): worker for worker in workers}
    for _ in range(options.steps):
        [ready], _ = ray.wait(list(running))
        worker = running.pop(ready)
        weights = server.push.remote([ray.get(ready)])
        running[worker.gradient.remote(weights)] = worker

    found = ray.get(server.pull.remote())
    error = max(abs(w - t) for w, t in zip(found, truth, strict=True))
    assert error < 0.1, found
    print("updates:", ray.get(server.update_count.remote()))
    print("weights:", [round(w) for w in found])


if __name__ == "__main__":
    main()
