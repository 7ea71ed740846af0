"""The action transformer: its fast ways give what the plain way gives, for both norms, and learn the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dexloop.hardware.errors import BadInput
from dexloop.train.controller.config import NetworkConfig, ObjectiveConfig
from dexloop.train.controller.objective import Ddim, Flow
from dexloop.train.controller.transformer import ActionTransformer, CrossAttention, RmsNorm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

TINY = NetworkConfig(width=32, layers=3, heads=4)
TOKENS, DIM, OBSERVATION = 6, 5, 9


def network(config: NetworkConfig = TINY, seed: int = 0) -> ActionTransformer:
    torch.manual_seed(seed)
    model = ActionTransformer(config, TOKENS, DIM, OBSERVATION).eval()
    for parameter in model.parameters():  # also what starts at zero or one
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model


def inputs(rows: int = 2, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, TOKENS, DIM, generator=generator)
    time = torch.randint(50, (rows,), generator=generator).float()
    return x, time, torch.randn(rows, OBSERVATION, TINY.width, generator=generator)


def plain(model: ActionTransformer, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
    """One step written out: the whole conditioning is projected again in every block."""
    config, weights = model.config, model.state_dict()

    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, value: Tensor) -> Tensor:
        power = value.var(-1, keepdim=True) if config.norm == "centred" else (value**2).mean(-1, keepdim=True)
        return value / (power + 1e-6).sqrt() * weights[f"{name}.weight"]

    def heads(value: Tensor) -> Tensor:
        return value.unflatten(-1, (config.heads, -1)).transpose(1, 2)

    def attend(name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = norm(f"{name}.q_norm", heads(q)), norm(f"{name}.k_norm", heads(k))
        share = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return linear(f"{name}.proj", (share @ heads(v)).transpose(1, 2).flatten(2))

    angles = time[:, None] * torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
    waves = torch.cat([angles.cos(), angles.sin()], -1)
    time_token = linear("time_emb.mlp.2", F.silu(linear("time_emb.mlp.0", waves)))
    c = torch.cat([tokens, time_token[:, None]], 1) + weights["cond_pos_emb"]
    x = linear("input_emb", x) + weights["pos_emb"]
    for i in range(config.layers):
        block = f"blocks.{i}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
        x = x + attend(f"{block}.attn", q, k, v)
        q = linear(f"{block}.cross_attn.q", norm(f"{block}.norm2", x))
        x = x + attend(f"{block}.cross_attn", q, *linear(f"{block}.cross_attn.kv", c).chunk(2, -1))
        inner = F.gelu(linear(f"{block}.ffn.fc1", norm(f"{block}.norm3", x)), approximate="tanh")
        x = x + linear(f"{block}.ffn.fc2", inner)
    return linear("head", norm("ln_f", x))


@pytest.mark.parametrize("norm", ["rms", "centred"])
@torch.no_grad()
def test_a_step_is_what_the_plain_way_gives(norm: str) -> None:
    model = network(replace(TINY, norm=norm))
    x, time, tokens = inputs()
    expected = plain(model, x, time, tokens)
    torch.testing.assert_close(model(x, time, model.observe(tokens)), expected, atol=2e-5, rtol=1e-5)
    at_times = model.at_times(time[:1], model.observe(tokens))
    torch.testing.assert_close(at_times(x, time[:1].expand(2)), plain(model, x, time[:1].expand(2), tokens))


@pytest.mark.parametrize(
    "objective",
    [Ddim(ObjectiveConfig("ddim", predict="noise")), Ddim(ObjectiveConfig("ddim")), Flow(ObjectiveConfig())],
)
@given(steps=st.integers(1, 12), hidden=st.lists(st.booleans(), min_size=OBSERVATION, max_size=OBSERVATION))
@settings(max_examples=10, deadline=None)
def test_sampling_with_prepared_times_is_sampling(objective: Ddim | Flow, steps: int, hidden: list[bool]) -> None:
    model = network()
    noise, _, tokens = inputs()
    with torch.no_grad():
        observed = model.observe(tokens, torch.tensor([hidden, hidden[::-1]]))
        fast = objective.sample(model.at_times(objective.times(steps), observed), noise, steps)
        slow = objective.sample(lambda x, time: model(x, time, observed), noise, steps)
    # A step from all but pure noise divides by sqrt(alpha): it multiplies rounding, in both.
    largest = 1e-5 / float(objective.alphas_cumprod[-1].sqrt()) if isinstance(objective, Ddim) else 1e-5
    torch.testing.assert_close(fast, slow, atol=largest, rtol=1e-5)


@given(present=st.lists(st.booleans(), min_size=OBSERVATION, max_size=OBSERVATION), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_hidden_tokens_do_not_matter(present: list[bool], seed: int) -> None:
    model = network()
    x, time, tokens = inputs(1, seed)
    mask = torch.tensor([present])
    other = torch.where(mask[..., None], tokens, torch.randn(tokens.shape))
    attention: list[Tensor] = []
    first = model(x, time, model.observe(tokens, mask), attention)
    torch.testing.assert_close(first, model(x, time, model.observe(other, mask)), atol=1e-5, rtol=1e-5)
    assert len(attention) == TINY.layers
    for weights in attention:
        assert weights.shape == (1, TINY.heads, TOKENS, OBSERVATION + 1)
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, TINY.heads, TOKENS))
        assert (weights[..., :-1][..., ~mask[0]] == 0).all()


@pytest.mark.parametrize("norm", ["rms", "centred"])
def test_observing_before_learns_what_the_plain_way_learns(norm: str) -> None:
    model = network(replace(TINY, norm=norm))
    x, time, tokens = inputs()
    weights = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}
    tokens.requires_grad_()

    def gradients(out: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((out**2).sum(), [tokens, *weights.values()]))

    def ours() -> Tensor:
        return torch.func.functional_call(
            _Observing(model), {f"model.{n}": w for n, w in weights.items()}, (x, time, tokens)
        )

    class Written:  # the same weights, as ``plain`` reads them
        config = model.config

        @staticmethod
        def state_dict() -> dict[str, Tensor]:
            return weights

    for got, expected in zip(gradients(ours()), gradients(plain(Written, x, time, tokens)), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)


class _Observing(nn.Module):
    def __init__(self, model: ActionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        return self.model(x, time, self.model.observe(tokens))


@torch.no_grad()
def test_bfloat16_stays_near() -> None:
    model = network()
    x, time, tokens = inputs()
    exact = model(x, time, model.observe(tokens))
    model.bfloat16()
    half = model(x.bfloat16(), time, model.observe(tokens.bfloat16())).float()
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_dropout_is_for_training_only() -> None:
    model = network(replace(TINY, dropout=0.5))
    x, time, tokens = inputs()
    assert torch.equal(model(x, time, model.observe(tokens)), model(x, time, model.observe(tokens)))
    model.train()
    assert not torch.equal(model(x, time, model.observe(tokens)), model(x, time, model.observe(tokens)))


@torch.no_grad()
def test_dropped_weights_drop_values_and_their_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    cross = CrossAttention(replace(TINY, dropout=0.5)).train()
    nn.init.normal_(cross.kv.bias)
    x, tokens = torch.randn(2, TOKENS, TINY.width, generator=generator), inputs()[2]
    kept = 2.0 * (torch.rand(2, TINY.heads, TOKENS, tokens.shape[1], generator=generator) < 0.5)
    # The weights are dropped by ``kept``; what goes out (3 axes) is left alone.
    monkeypatch.setattr(
        "dexloop.train.controller.transformer.F.dropout", lambda x, p, training: x * kept if x.ndim == 4 else x
    )
    keys, attention = cross.keys(tokens), []
    got = cross.learn(x, keys, tokens, None, attention)
    expected = cross.proj(((attention[0] * kept) @ cross.values(tokens)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_new_network_answers_zero() -> None:
    model = ActionTransformer(TINY, TOKENS, DIM, OBSERVATION)
    x, time, tokens = inputs()
    assert (model(x, time, model.observe(tokens)) == 0).all()


@given(scale=st.floats(0.1, 10), seed=st.integers(0, 10))
@settings(deadline=None)
@torch.no_grad()
def test_norms_ignore_scale(scale: float, seed: int) -> None:
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(seed))
    for centred in (False, True):
        norm = RmsNorm(32, centred)
        torch.testing.assert_close(norm(scale * x), norm(x), atol=1e-3, rtol=1e-3)
        power = norm(x).var(-1) if centred else norm(x).square().mean(-1)
        torch.testing.assert_close(power, torch.ones(4), atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_said() -> None:
    model = network()
    x, _, tokens = inputs()
    with pytest.raises(BadInput, match="gave 8 observation tokens, the transformer was made for 9"):
        model.observe(tokens[:, 1:])
    at_times = model.at_times(torch.tensor([3.0]), model.observe(tokens))
    with pytest.raises(BadInput, match=r"asked for time 4.0"):
        at_times(x, torch.tensor([4.0, 4.0]))
