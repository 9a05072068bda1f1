"""The two kernels, attention over a forest and the tiled head, against plain arithmetic.

Run: pytest tests/test_kernels.py
"""

from __future__ import annotations

import pytest
import torch

from burnish.nn import attention, loss
from burnish.nn.attention import forest_attention
from burnish.nn.attention_flex import flex_forest_attention
from burnish.nn.forest import plant
from burnish.nn.loss import head_loss
from test_engine import V, rows


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 16 rows and softmax blocks of 3, so that few terms make many of both."""
    monkeypatch.setattr(loss, "TILE_BYTES", 16 * 4 * V)
    monkeypatch.setattr(loss, "BLOCK_BYTES", 3 * 4 * V)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("head_is_trained", [True, False])
@pytest.mark.parametrize("extras", [False, True], ids=["plain", "bias and LoRA"])
@pytest.mark.parametrize("terms", [1, 16, 55])
def test_tiled_head_equals_plain_cross_entropy(
    small_tiles, softcap, scale, head_is_trained, extras, terms
):
    torch.manual_seed(0)
    hidden = torch.randn(terms, 16, requires_grad=True)
    head = torch.randn(V, 16, requires_grad=head_is_trained)
    targets, weights = torch.randint(V, (terms,)), torch.rand(terms)
    bias = torch.randn(V, requires_grad=True) if extras else None
    low, up = (torch.randn(n, 2, requires_grad=True) for n in (terms, V))
    leaves = [x for x in (hidden, head, *((bias, low, up) if extras else ())) if x.requires_grad]

    loss = head_loss(
        hidden,
        head,
        targets,
        weights,
        bias=bias,
        low_rank=(low, up) if extras else None,
        softcap=softcap,
        scale=scale,
    )
    found = torch.autograd.grad(3 * loss, leaves)

    logits = hidden @ head.T
    if extras:
        logits = logits + low @ up.T + bias
    logits = logits * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    plain = (torch.nn.functional.cross_entropy(logits, targets, reduction="none") * weights).sum()
    expected = torch.autograd.grad(3 * plain, leaves)

    torch.testing.assert_close(loss, plain)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_tiled_head_in_bf16_keeps_the_log_sum_exp_in_fp32(small_tiles):
    """Against fp64 on the very logits that bf16 gives: only the logits themselves are rounded."""
    torch.manual_seed(0)
    hidden, head = torch.randn(55, 16).bfloat16(), (3 * torch.randn(V, 16)).bfloat16()
    targets, weights = torch.randint(V, (55,)), torch.ones(55)
    logits = (hidden @ head.T).double()
    exact = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert head_loss(hidden, head, targets, weights).item() == pytest.approx(exact.item(), rel=1e-6)


def attended(query, key, value, forest, window, softcap):
    """Forest attention's second opinion: the whole mask, in fp64, example by example."""
    ends = {n: segment.end for n, segment in enumerate(forest.segments)}
    seen = torch.zeros(len(forest.ids), len(forest.ids), dtype=torch.bool)
    for n, segment in enumerate(forest.segments):
        path = forest.path(n)
        tokens = torch.cat([torch.arange(forest.segments[m].start, ends[m]) for m in path])
        for token in range(segment.start, segment.end):
            before = forest.positions[token] - forest.positions[tokens]
            visible = (before >= 0) & (before < (window or 10**9))
            seen[token, tokens[visible]] = True
    groups = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query.double() @ key.transpose(2, 3) * 0.3
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 5, 24])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("rows_of_block", [1, 7, 256])
def test_attention_in_blocks_equals_attention_under_the_whole_mask(
    monkeypatch, window, softcap, rows_of_block
):
    monkeypatch.setattr(attention, "BLOCK_ROWS", rows_of_block)
    forest = plant(rows())
    torch.manual_seed(0)
    tokens = len(forest.ids)
    q, k, v = (torch.randn(1, h, tokens, 8, requires_grad=True) for h in (4, 2, 2))
    expected = attended(q, k, v, forest, window, softcap)
    slope = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * slope).sum(), (q, k, v))
    settings = {"forest": forest, "scaling": 0.3, "sliding_window": window, "softcap": softcap}

    found, _ = forest_attention(None, q, k, v, None, **settings)
    gradients = torch.autograd.grad((found * slope.float()).sum(), (q, k, v))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-4, atol=1e-5)

    in_bf16 = (x.bfloat16() for x in (q, k, v))
    rounded, _ = forest_attention(None, *in_bf16, None, **settings)
    assert (rounded - expected).norm() < 0.02 * expected.norm()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attention_for_cuda_sees_the_same_tokens(window, softcap):
    """flex_attention has a forward on CPU: the block mask that CUDA gets is checked by it."""
    forest = plant(rows())
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, len(forest.ids), 16) for h in (4, 2, 2))
    found, _ = flex_forest_attention(q, k, v, forest, 0.3, window, softcap)
    expected = attended(q, k, v, forest, window, softcap).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
