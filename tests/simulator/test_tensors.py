"""Making, viewing, resizing and copying tensors on the simulated device."""

from __future__ import annotations

import pytest
import torch


def test_factories_make_tensors_on_mps() -> None:
    """Every factory function gives the CPU's values on mps:0, with the CPU's default dtype."""
    for make in (
        lambda device: torch.zeros(2, 3, device=device),
        lambda device: torch.ones(2, 3, dtype=torch.int64, device=device),
        lambda device: torch.full((2,), 7, device=device),
        lambda device: torch.arange(2, 9, 3, device=device),
        lambda device: torch.linspace(0, 1, 5, device=device),
        lambda device: torch.eye(3, dtype=torch.bfloat16, device=device),
        lambda device: torch.tensor([[1, 2], [3, 4]], device=device),
        lambda device: torch.tril_indices(3, 3, device=device),
        lambda device: torch.empty_strided((2, 2), (1, 2), device=device).fill_(1),
        lambda device: torch.zeros(1, 2, 3, 4, device=device).to(memory_format=torch.channels_last),
    ):
        expected, result = make("cpu"), make("mps")
        assert result.device == torch.device("mps:0")
        assert (result.dtype, result.stride()) == (expected.dtype, expected.stride())
        assert torch.equal(result.cpu(), expected)


def test_views_share_memory() -> None:
    """Writing through a view changes the tensor; no view allocates."""
    x = torch.arange(12.0, device="mps")
    for view in (
        x.view(3, 4),
        x[2:5],
        x.view(3, 4).t(),
        x.view(3, 4)[:, 1],
        x.unfold(0, 2, 2),
        x.as_strided((2, 2), (3, 1), 1),
        x.view(3, 4).unsqueeze(0).expand(2, 3, 4),
        x.view(torch.int32),
        torch.view_as_complex(x.view(6, 2)),
        x.detach(),
    ):
        assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        assert view.device.type == "mps"
    x.view(3, 4).t()[0, 2] = -1.0
    assert x[8].item() == -1.0
    head, tail = x.split([3, 9])
    tail.zero_()
    assert x.tolist() == [0.0, 1.0, 2.0] + [0.0] * 9 and head.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("source_dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("target_dtype", [torch.float32, torch.float16, torch.int32])
def test_copies_convert_like_the_cpu(source_dtype: torch.dtype, target_dtype: torch.dtype) -> None:
    """CPU to mps, mps to CPU and mps to mps, with dtype conversion, strides and broadcasting."""
    source = (torch.arange(12).view(3, 4) % 5).to(source_dtype)
    expected = source.t().to(target_dtype)
    assert torch.equal(source.t().to("mps", target_dtype, non_blocking=True).cpu(), expected)
    assert torch.equal(source.to("mps").t().to("cpu", target_dtype), expected)
    assert torch.equal(source.to("mps").t().to(target_dtype).cpu(), expected)
    target = torch.zeros(2, 4, 3, dtype=target_dtype, device="mps")
    target.copy_(source.t())
    assert torch.equal(target.cpu(), expected.expand(2, 4, 3))
    back = torch.zeros(3, 4, dtype=target_dtype).t()
    back.copy_(source.to("mps").t(), non_blocking=True)
    assert torch.equal(back, expected)


def test_scalars_come_back() -> None:
    """`item`, `bool`, `int` and indexing read the device's memory."""
    x = torch.tensor([1.5, -2.0], device="mps")
    assert x[0].item() == 1.5 and float(x[1]) == -2.0
    assert bool((x > 0).any()) and not bool((x > 0).all())
    assert torch.tensor(7, device="mps").item() == 7
    assert torch.equal(x, torch.tensor([1.5, -2.0], device="mps"))


def test_resize_keeps_what_fits() -> None:
    """`resize_` grows the storage and keeps its bytes, like the CPU's."""
    x = torch.arange(4.0, device="mps")
    x.resize_(2, 4)
    assert x.shape == (2, 4) and x[0].tolist() == [0.0, 1.0, 2.0, 3.0]
    x.resize_(2)
    assert x.tolist() == [0.0, 1.0] and x.untyped_storage().nbytes() == 32


def test_set_takes_another_storage() -> None:
    """`set_` and assigning `.data` make a tensor look at other memory."""
    x, y = torch.zeros(2, device="mps"), torch.arange(6.0, device="mps")
    x.set_(y.untyped_storage(), 1, (2, 2), (2, 1))
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    x.set_(y[3:])
    assert x.tolist() == [3.0, 4.0, 5.0]
    x.set_(y.untyped_storage())
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    x.set_()
    assert x.numel() == 0 and x.device.type == "mps"
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.data = y[:2]
    assert parameter.device.type == "mps"


def test_tensor_lists_and_optional_lists() -> None:
    """Operators that take lists, give lists, or take lists with gaps."""
    x = torch.arange(12.0, device="mps").view(3, 4)
    assert torch.equal(torch.cat([x, x], 1).cpu(), torch.cat([x.cpu(), x.cpu()], 1))
    assert [part.tolist() for part in torch.unbind(x.sum(1))] == [6.0, 22.0, 38.0]
    index = torch.tensor([1, 3], device="mps")
    assert torch.equal(x[:, index].cpu(), x.cpu()[:, [1, 3]])
    x[:, index] = torch.zeros(3, 2, device="mps")
    assert x.sum().item() == 0 + 2 + 4 + 6 + 8 + 10
    many = [torch.full((1,), float(i), device="mps") for i in range(60)]
    torch._foreach_add_(many, many)
    assert [t.item() for t in many] == [2.0 * i for i in range(60)]
    assert [t.item() for t in torch._foreach_mul(many, 0.5)] == [float(i) for i in range(60)]


def test_overlap_is_seen_through_the_aliases() -> None:
    """A kernel that refuses overlapping memory refuses it on mps too."""
    x = torch.arange(6.0, device="mps")
    with pytest.raises(RuntimeError, match=r"overlap|single memory location"):
        torch.cumsum(x[:5], 0, out=x[1:])
    with pytest.raises(RuntimeError, match="single memory location"):
        x[:1].expand(3).add_(1)


def test_conjugates_and_negatives_are_resolved() -> None:
    """Lazy conjugation and negation survive the way through the CPU."""
    z = torch.tensor([1 + 2j, 3 - 1j], device="mps")
    assert z.conj().cpu().tolist() == [1 - 2j, 3 + 1j]
    assert (z.conj() * z).real.tolist() == [5.0, 10.0]
    assert z.conj().imag.tolist() == [-2.0, 1.0]


def test_inference_mode_and_meta() -> None:
    """Inference tensors and `to_empty` from the meta device."""
    with torch.inference_mode():
        y = torch.ones(2, device="mps") * 2
    assert y.is_inference() and y.tolist() == [2.0, 2.0]
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    assert module.to_empty(device="mps").weight.device.type == "mps"


def test_default_device_and_printing() -> None:
    """`torch.device("mps")` as a context, and `repr`, as on a Mac."""
    with torch.device("mps"):
        x = torch.zeros(2)
    assert repr(x) == "tensor([0., 0.], device='mps:0')"
    assert f"{torch.ones((), device='mps') * 2:.1f}" == "2.0"
