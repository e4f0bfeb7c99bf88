"""Training scripts as PyTorch's examples have them, each planned with at most three added lines.

The added lines end with `# added`; what comes before is the script up to its loop.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F  # noqa: N812
from tracing import peaks, traced

import memplan
from memplan.types import TrainingJob


class Net(nn.Module):
    """MNIST."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = torch.flatten(self.dropout1(F.max_pool2d(x, 2)), 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


def mnist() -> TrainingJob:
    model = Net()
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    data, target = torch.empty(64, 1, 28, 28), torch.zeros(64, dtype=torch.int64)
    return memplan.capture_job(  # added
        model, data, optimizer, loss=F.nll_loss, targets=target, state_count=2
    )


class RNNModel(nn.Module):
    """The word language model."""

    def __init__(self, ntoken: int, ninp: int, nhid: int, nlayers: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=0.2)
        self.decoder = nn.Linear(nhid, ntoken)
        self.ntoken = ntoken

    def forward(self, input: Tensor, hidden: Any) -> Any:
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        decoded = self.decoder(self.drop(output)).view(-1, self.ntoken)
        return F.log_softmax(decoded, dim=1), hidden


def word_language_model() -> TrainingJob:
    model = RNNModel(1000, 200, 200, 2)
    optimizer = optim.SGD(model.parameters(), lr=20)
    data, targets = torch.zeros(35, 20, dtype=torch.int64), torch.zeros(700, dtype=torch.int64)
    hidden = (torch.zeros(2, 20, 200), torch.zeros(2, 20, 200))
    where = {"input": 1, "hidden": 1}  # added
    loss = lambda output, target: F.nll_loss(output[0], target)  # noqa: E731  # added
    return memplan.capture_job(  # added
        model, (data, hidden), optimizer, loss=loss, targets=targets, batch_dim=where, batch_size=20
    )


class Generator(nn.Sequential):
    """DCGAN's."""

    def __init__(self, nz: int = 100, ngf: int = 64) -> None:
        widths = [nz, ngf * 8, ngf * 4, ngf * 2, ngf]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            stride, padding = (2, 1) if index else (1, 0)
            layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU(True)]
        super().__init__(*layers, nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), nn.Tanh())


class Discriminator(nn.Module):
    """DCGAN's."""

    def __init__(self, ndf: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        for scale in (1, 2, 4):
            layers += [nn.Conv2d(ndf * scale, ndf * scale * 2, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(ndf * scale * 2), nn.LeakyReLU(0.2, True)]
        self.main = nn.Sequential(*layers, nn.Conv2d(ndf * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.main(x).view(-1, 1).squeeze(1)
        return found


def dcgan() -> TrainingJob:
    generator, discriminator = Generator(), Discriminator()
    optimizer = optim.Adam(generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
    noise, label = torch.empty(64, 100, 1, 1), torch.ones(64)
    both = nn.Sequential(generator, discriminator)  # added: the step of the generator
    return memplan.capture_job(both, noise, optimizer, loss=nn.BCELoss(), targets=label)  # added


class VAE(nn.Module):
    """The variational autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = F.relu(self.fc1(x.view(-1, 784)))
        mu, logvar = self.fc21(hidden), self.fc22(hidden)
        std = torch.exp(0.5 * logvar)
        z = mu + torch.randn_like(std) * std
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


def loss_function(recon_x: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    bce = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
    return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def vae() -> TrainingJob:
    model = VAE()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    data = torch.empty(128, 1, 28, 28)
    loss = lambda out, x: loss_function(out[0], x, *out[1:])  # noqa: E731  # added
    return memplan.capture_job(model, data, optimizer, loss=loss, targets=data)  # added


class Block(nn.Module):
    """Of the minimal GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        parts = self.qkv(self.ln1(x)).split(c, dim=2)
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).contiguous().view(b, t, c))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class GPT(nn.Module):
    """Decays matrices only, ties its head to its table, and computes its loss."""

    def __init__(self, vocabulary: int = 500, width: int = 64, length: int = 32) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(2))
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.wte.weight = self.head.weight

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln(x))
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def gpt() -> TrainingJob:
    model = GPT()
    decay = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95))
    x, y = torch.zeros(12, 32, dtype=torch.int64), torch.zeros(12, 32, dtype=torch.int64)
    return memplan.capture_job(model, (x, y), optimizer, loss=lambda out: out[1])  # added


class UNet(nn.Module):
    """A small one for diffusion, with the time of each sample embedded."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * width))
        self.inp = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, 2 * width)
        self.attend = nn.MultiheadAttention(2 * width, 4, batch_first=True)
        self.up = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.out = nn.Conv2d(2 * width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.width // 2
        freqs = torch.exp(-math.log(10000) * torch.arange(half, device=x.device) / half)
        angles = t[:, None].float() * freqs[None]
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1))
        first = self.inp(x)
        h = F.silu(self.norm(self.down(first))) + time[:, :, None, None]
        tokens = h.flatten(2).transpose(1, 2)
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        h = tokens.transpose(1, 2).reshape(h.shape)
        return self.out(torch.cat([F.silu(self.up(h)), first], dim=1))


def unet() -> TrainingJob:
    model = UNet()
    optimizer = optim.AdamW(model.parameters(), lr=1e-4)
    noisy, noise = torch.empty(16, 3, 32, 32), torch.empty(16, 3, 32, 32)
    t = torch.zeros(16, dtype=torch.int64)
    return memplan.capture_job(  # added
        model, (noisy, t), optimizer, loss=F.mse_loss, targets=noise
    )


SCRIPTS = [mnist, word_language_model, dcgan, vae, gpt, unet]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_script(script: Callable[[], TrainingJob]) -> None:
    job = script()
    assert job.model.graph is not None
    assert job.model.graph.assumptions == ()
    timeline = traced(job)
    assert timeline.affine
    assert peaks(timeline, 2 * job.micro_batch_size) > peaks(timeline, job.micro_batch_size)


def test_tied_weights_count_once() -> None:
    graph = gpt().model.graph
    assert graph is not None
    assert [t.tied_names for t in graph.tensors if t.tied_names] == [("head.weight",)]
    assert traced(gpt()).parameter_count == sum(p.numel() for p in GPT().parameters())


def test_a_generator_step_does_not_keep_states_for_the_discriminator() -> None:
    expected = 2 * sum(p.nbytes for p in Generator().parameters())
    assert traced(dcgan()).optimizer_state_bytes == expected
