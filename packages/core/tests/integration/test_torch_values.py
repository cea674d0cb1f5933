"""PyTorch's tensors as ordinary values: in objects, arguments and results."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import umbel
from umbel._objects import serialization

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
LARGE = 50_000  # elements: more than what travels in messages


def there_and_back(value: Any) -> Any:
    made = serialization.serialize(value)
    return pickle.loads(made.inband, buffers=[bytes(one) for one in made.buffers])


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_tensor_of_any_type_and_shape_comes_back(dtype: Any, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(dtype)
    back = there_and_back(tensor)
    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert torch.equal(back, tensor)


def test_views_keep_their_strides_and_share_their_memory_again() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    back, row, turned = there_and_back([whole, whole[1], whole.t()])
    back[1, 2] = 100.0
    assert (row[2], turned[2, 1], turned.stride()) == (100.0, 100.0, (1, 4))
    assert whole[1, 2] == 6.0


def test_modules_and_what_needs_a_gradient() -> None:
    module = torch.nn.Linear(3, 2)
    back = there_and_back(module)
    assert torch.equal(back.weight, module.weight)
    assert isinstance(back.weight, torch.nn.Parameter)
    back(torch.ones(3)).sum().backward()
    assert back.weight.grad is not None
    tied = torch.nn.ModuleList([module, module])
    first, second = there_and_back(tied)
    assert first.weight is second.weight


def test_sparse_and_quantized_tensors_come_back() -> None:
    sparse = torch.eye(3).to_sparse()
    assert torch.equal(there_and_back(sparse).to_dense(), torch.eye(3))
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.qint8)
    assert torch.equal(there_and_back(quantized).dequantize(), torch.ones(3))


def test_large_memory_lies_beside_the_pickle() -> None:
    made = serialization.serialize({"weights": torch.ones(LARGE)})
    assert [one.nbytes for one in made.buffers] == [LARGE * 4]
    assert len(made.inband) < 1_000


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_reader_may_write_to_what_he_got(engine: str) -> None:
    @umbel.remote
    def doubled(tensor: Any) -> Any:
        tensor *= 2
        return tensor

    with umbel.init(num_cpus=1, engine=engine):
        ref = umbel.put(torch.ones(LARGE))
        mine = umbel.get(ref)
        mine += 5
        assert umbel.get(ref).sum() == LARGE
        assert umbel.get(doubled.remote(ref)).sum() == 2 * LARGE
        assert umbel.get(ref).sum() == LARGE
