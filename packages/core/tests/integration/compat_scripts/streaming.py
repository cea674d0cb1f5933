"""Generators: a task and an actor that stream their results, and a pipeline over both."""

import ray

ray.init(num_cpus=2)


@ray.remote
def squares(count):
    for i in range(count):
        yield i * i


@ray.remote
class Tokens:
    def split(self, text):
        for word in text.split():
            yield word.upper()

    @ray.method(num_returns=2)
    def ends(self, text):
        return text[0], text[-1]


@ray.remote
def square(x):
    return x * x


@ray.remote(num_returns=3)
def triple():
    return "a", "b", "c"


@ray.remote
def failing():
    yield 1
    raise KeyError("no more")


assert [ray.get(ref) for ref in squares.remote(5)] == [0, 1, 4, 9, 16]
print("fourth powers:", ray.get([square.remote(ref) for ref in squares.options(num_returns="streaming").remote(4)]))
actor = Tokens.remote()
print("tokens:", [ray.get(ref) for ref in actor.split.remote("to be or not to be")])
first, last = actor.ends.remote("xyz")
print("ends:", ray.get([first, last]), ray.get(triple.remote()))
stream = failing.remote()
print("first:", ray.get(next(stream)))
try:
    ray.get(next(stream))
except KeyError as error:
    print("then:", isinstance(error, ray.exceptions.RayTaskError), error.cause)
try:
    next(stream)
except StopIteration:
    print("over")
