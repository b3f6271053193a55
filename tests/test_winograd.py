"""적게 곱한 합성곱이 정의대로 곱한 것과 같은지: 모양, 기울기, 쓰지 않을 때."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from cifar_lit.parts import winograd as part
from cifar_lit.parts.nets import FastNet
from cifar_lit.parts.winograd import WinogradConv2d, winograd

SHAPES = [(1, 1, 1, 1, 1), (2, 3, 5, 7, 13), (3, 8, 2, 4, 4), (2, 5, 6, 30, 17)]


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def close(ours, theirs):
    return (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('shape', SHAPES)
def test_answer_and_gradients_are_those_of_conv2d(shape, layout):
    n, inputs, outputs, height, width = shape
    x = normal(n, inputs, height, width).to(memory_format=layout).requires_grad_()
    weight = normal(outputs, inputs, 3, 3).requires_grad_()
    with mock.patch.object(part, '_AT_ONCE', 2):  # 셋이면 둘과 하나로
        y = winograd(x, weight)
    expected = F.conv2d(x, weight, padding=1)
    assert y.shape == expected.shape and close(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last)
    gradient = normal(*y.shape)
    ours = torch.autograd.grad(y, (x, weight), gradient)
    theirs = torch.autograd.grad(expected, (x, weight), gradient)
    assert all(map(close, ours, theirs))


def test_nothing_is_computed_for_a_frozen_one():
    x, weight = normal(2, 3, 9, 9), normal(4, 3, 3, 3)
    with mock.patch.object(part, '_added') as added:
        winograd(x, weight.requires_grad_()).sum().backward()
    assert weight.grad is not None and not added.called
    winograd(x.requires_grad_(), weight.detach()).sum().backward()
    assert x.grad is not None


def test_a_second_derivative_is_refused():
    x, weight = normal(1, 3, 6, 6).requires_grad_(), normal(2, 3, 3, 3)
    y = winograd(x, weight).square().sum()
    [gradient] = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


def gradients_of(net, images):
    net.zero_grad()
    F.cross_entropy(net(images), torch.arange(8)).backward()
    return [weight.grad for weight in net.parameters() if weight.requires_grad]


def test_a_large_net_learns_the_same_with_fewer_products():
    net = FastNet((3, 32, 32), 10, widths=(32, 128, 128)).train()
    images = normal(8, 3, 32, 32)
    net.init_whitening(images)
    with mock.patch.object(part, 'winograd', wraps=winograd) as called:
        ours = gradients_of(net, images)
    assert called.call_count == 3  # 128 → 128 채널. 7픽셀 둘과 3픽셀
    with mock.patch.object(part, 'fewer_products', lambda *_: False):
        theirs = gradients_of(net, images)
    for one, other in zip(ours, theirs):
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999


def test_only_in_training_and_only_in_32_bits():
    conv = WinogradConv2d(128, 128)
    x = normal(2, 128, 8, 8)

    def fewer():
        with mock.patch.object(part, 'winograd', wraps=winograd) as called:
            conv(x.to(conv.weight.dtype))
        return called.called

    assert fewer()
    with torch.autocast('cpu', torch.bfloat16):
        assert not fewer()
    assert not any(
        [conv.eval() and fewer(), conv.train() and conv.double() and fewer()]
    )
    conv.float()
    assert conv(x[0]).shape == (128, 8, 8)  # 배치가 아니면
    assert not WinogradConv2d(8, 4096)._worth_it(normal(1, 8, 8, 8))
    compiled = torch.compile(conv, backend='eager', fullgraph=True)
    with mock.patch.object(part, 'winograd') as called:
        compiled(x)
    assert not called.called
