"""The mask's transformer: distinct patches give what all patches give, and both what PyTorch's own layers give."""

from __future__ import annotations

import torch
from dexloop.train.controller.mask_vit import MaskTransformer, distinct_patches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

PATCH, GRID, WIDTH, HEADS = 4, 5, 24, 4
SIDE = PATCH * GRID


def model(unique: bool = True) -> MaskTransformer:
    torch.manual_seed(0)
    made = MaskTransformer(WIDTH, 3, HEADS, PATCH, unique)
    for parameter in made.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return made


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """(B, 1, SIDE, SIDE): rectangles, some empty, some full, some with speckles."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        x0, y0, x1, y1 = (draw(st.integers(0, SIDE)) for _ in range(4))
        mask = torch.zeros(SIDE, SIDE)
        mask[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)] = 1
        if draw(st.booleans()):
            seed = draw(st.integers(0, 100))
            mask = (mask + (torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) < 0.05)).clamp(0, 1)
        rows.append(mask)
    return torch.stack(rows)[:, None]


@given(mask=masks())
@settings(max_examples=40, deadline=None)
def test_distinct_patches_give_what_all_give(mask: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model()(mask), model(unique=False)(mask), atol=3e-5, rtol=1e-4)


@given(mask=masks())
@settings(max_examples=40, deadline=None)
def test_patches_come_back(mask: Tensor) -> None:
    patches = F.unfold(mask, PATCH, stride=PATCH).transpose(1, 2)
    distinct, counts, which = distinct_patches(patches)
    assert torch.equal(distinct.gather(1, which[..., None].expand_as(patches)), patches)
    assert (counts.sum(1) == GRID**2).all()
    assert torch.equal(counts, torch.stack([w.bincount(minlength=distinct.shape[1]) for w in which]).float())


def test_an_empty_mask_takes_two_patches() -> None:
    distinct, counts, _ = distinct_patches(torch.zeros(2, GRID**2, PATCH**2))
    assert distinct.shape[1] == 2
    assert counts.tolist() == [[GRID**2, 0]] * 2


def test_gradients_are_the_same() -> None:
    mask = torch.zeros(2, 1, SIDE, SIDE)
    mask[0, 0, 3:11, 5:9] = mask[1, 0, :, 7:] = 1
    fast, slow = model(), model(unique=False)
    for made in (fast, slow):
        (made(mask) ** 2).mean().backward()
    for (name, ours), (_, plain) in zip(fast.named_parameters(), slow.named_parameters(), strict=True):
        assert ours.grad is not None and plain.grad is not None, name  # noqa: PT018
        torch.testing.assert_close(ours.grad, plain.grad, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_it_is_pytorchs_encoder() -> None:
    ours = model()
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, nn.GELU(), batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    theirs.load_state_dict(ours.transformer.state_dict())
    mask = (torch.rand(2, 1, SIDE, SIDE) > 0.5).float()
    torch.testing.assert_close(ours(mask), theirs(ours.patch_embed(mask)), atol=3e-5, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_stays_near() -> None:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 3:11, 5:9] = 1
    exact = model()(mask)
    half = model().bfloat16()(mask.bfloat16()).float()
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()
