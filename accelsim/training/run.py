"""Training: weights through what is read of them, error rates beside, resumable, the same bits for the same seed.

Every batch is a pure function of (seed, step): which images, how they are shifted, and which bits are wrong. So a run that goes on from a
checkpoint ends where an uninterrupted one does.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from accelsim.optimizer.reliability import allocate_energy, is_convex
from accelsim.training.checkpoint import check_weights, load_checkpoint, save_checkpoint
from accelsim.training.data import Data, Images, normalized
from accelsim.training.layout import parse_layers
from accelsim.training.network import MemoryNetwork
from accelsim.training.rates import HIGHEST_P, Floats, Rates, start_rates
from accelsim.training.recipe import ClosedForm, Lanmax, RandomBitErrors, Recipe, Uniform
from accelsim.training.stored import Drawing, Storage
from accelsim.training.trainer import START_MULTIPLIER, Trainer
from devices.base.errors import SpecError
from devices.reliability_law import ReliabilityLaw

WARM_SHARE = 0.1
HELD_OUT, HELD_OUT_EVERY, HELD_OUT_BATCH, FORGET = 2000, 8, 256, 0.8
"""For a budget of accuracy: images set aside, how often and how many are looked at, and what is kept of the running mean a look."""
START_RATE = 1e-3
"""Where learning starts without a closed form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """News of training: steps done and in all, running loss and accuracy, energy, seconds spent and left."""

    step: int
    n_steps: int
    loss: float
    accuracy: float
    energy_rel: float
    spent_s: float
    left_s: float


Tell: TypeAlias = Callable[[Progress], None]


def share_of_bits(network: MemoryNetwork, recipe: Recipe) -> Floats:
    """Return the share of the bits read in an inference that are bit j of layer l, `(n_layers, n_bits)`."""
    reads = [float(layer.n_weights) * (layer.n_positions if recipe.reads == "positions" else 1.0) for layer in network.stored]
    each = np.repeat(np.array(reads)[:, None], recipe.word.n_bits, axis=1)
    return each / each.sum()


def made_network(recipe: Recipe, *, input_shape: tuple[int, ...], n_classes: int, seed: int) -> MemoryNetwork:
    """Return the recipe's network with the first weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        storage = Storage(word=recipe.word, faults=recipe.faults, scale=recipe.scale, clip=recipe.clip)
        return MemoryNetwork(parse_layers(recipe.layers), input_shape=input_shape, n_classes=n_classes, storage=storage)


def trainer_of(recipe: Recipe, data: Data, *, seed: int, start: dict[str, Any] | None = None) -> Trainer:
    """Return a trainer at step 0, its weights drawn, or those of an earlier training (a `network` state)."""
    network = made_network(recipe, input_shape=data.input_shape, n_classes=data.n_classes, seed=seed)
    if start is not None:
        _start_from(network, start)
    rates, multiplier = first_rates(network, recipe, data.train, seed=seed, is_trained=start is not None)
    return Trainer(
        recipe=recipe, seed=seed, network=network, optimizer=_optimizer(network, recipe), rates=rates, multiplier=multiplier
    )


def _start_from(network: MemoryNetwork, state: dict[str, Any]) -> None:
    try:
        check_weights(state, network)
        network.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise SpecError(f"--start: weights of another network: {str(error).splitlines()[-1].strip()}; use the same layers") from None


def _optimizer(network: MemoryNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    schedule = recipe.schedule
    latent = [layer.latent for layer in network.stored]
    known = {id(p) for p in latent}
    others = [p for p in network.parameters() if id(p) not in known]
    groups = [{"params": latent, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if schedule.optimizer == "adam":
        return torch.optim.Adam(groups, lr=schedule.rate)
    return torch.optim.SGD(groups, lr=schedule.rate, momentum=0.9, nesterov=True)


# which error rates


def uniform_rate(law: ReliabilityLaw, energy_rel: float) -> float:
    """Return the error rate that an energy buys, below 1/2."""
    return min(float(law.error_rate(energy_rel)), HIGHEST_P)


def first_rates(network: MemoryNetwork, recipe: Recipe, images: Images, *, seed: int, is_trained: bool) -> tuple[Rates, float]:
    """Return the error rates that training starts at, and the multiplier; all but lanmax stay there.

    The closed form is of a trained network's damage: SpecError for it, and other rates for lanmax, where the network is not.
    """
    method, share = recipe.method, share_of_bits(network, recipe)
    if isinstance(method, ClosedForm) and not is_trained:
        raise SpecError("method.kind: closed_form: needs the damage of a trained network; give --start, the folder of an earlier training")
    if isinstance(method, Lanmax) and not (is_trained and method.has_closed_start and is_convex(recipe.law)):
        p = np.full(share.shape, method.start_error_rate_p or START_RATE)
        return start_rates(recipe.law, share, p, per=recipe.per), START_MULTIPLIER
    if isinstance(method, ClosedForm | Lanmax):
        return closed_form_rates(network, recipe, images, seed=seed)
    return start_rates(recipe.law, share, np.full(share.shape, _common_rate(recipe)), per="network"), START_MULTIPLIER


def _common_rate(recipe: Recipe) -> float:
    """Return the one error rate of a method that has no others; the law's least for networks without wrong bits."""
    method = recipe.method
    if isinstance(method, RandomBitErrors):
        return method.error_rate_p
    if isinstance(method, Uniform):
        return uniform_rate(recipe.law, method.energy_budget_rel) if method.energy_budget_rel else float(method.error_rate_p or 0.0)
    return recipe.law.bounds[0]


def closed_form_rates(network: MemoryNetwork, recipe: Recipe, images: Images, *, seed: int) -> tuple[Rates, float]:
    """Return the rates of least linear damage for the energy, by reverse water-filling, and what energy is worth in loss there.

    The damage is measured on the network as it is, all bits at the one rate that takes the energy.
    """
    assert isinstance(recipe.method, ClosedForm | Lanmax)
    share, budget = share_of_bits(network, recipe), recipe.method.energy_budget_rel
    assert budget is not None
    probe = np.full(share.shape, uniform_rate(recipe.law, budget))
    slope = measured_slopes(network, recipe, images, p=probe, n_batches=recipe.method.n_batches, seed=seed) / probe
    if recipe.per == "layer":
        slope = np.repeat(slope.mean(axis=1, keepdims=True), recipe.word.n_bits, axis=1)
    damage = np.maximum(slope, 1e-9 * np.abs(slope).max())
    found = allocate_energy(recipe.law, weight=share, damage=damage, energy_budget=budget)
    return start_rates(recipe.law, share, found.error_rate, per=recipe.per), 1.0 / found.multiplier


def measured_slopes(
    network: MemoryNetwork, recipe: Recipe, images: Images, *, p: Floats, n_batches: int, seed: int
) -> Floats:
    """Return p dE[L]/dp of each layer and bit, `(n_layers, n_bits)`, by (2) of `stored`, averaged over batches; nothing is learned."""
    network.eval()
    total = np.zeros(p.shape)
    for i in range(n_batches):
        x, y = batch_of(images, recipe, seed=seed, step=i)
        network.read(p, Drawing(seed=seed, purpose="damage", trial=i))
        nn.functional.cross_entropy(network(x), y).backward()
        total += network.rate_slopes()
    network.zero_grad()
    network.train()
    return total / n_batches


# batches


def n_steps_of(recipe: Recipe, images: Images) -> tuple[int, int]:
    """Return the steps of an epoch and of the whole training."""
    each = len(images) // min(recipe.schedule.batch_size, len(images))
    return each, each * recipe.schedule.n_epochs


def batch_of(images: Images, recipe: Recipe, *, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a step: each epoch takes all in an order of its own, the incomplete last batch is dropped."""
    schedule = recipe.schedule
    size = min(schedule.batch_size, len(images))
    epoch, i = divmod(step, len(images) // size)
    chosen = _order(len(images), seed, epoch)[i * size : (i + 1) * size]
    x = augmented(images.x[chosen], shift=schedule.shift_pixels, mirror=schedule.mirror, random=np.random.default_rng([seed, 1, step]))
    return torch.from_numpy(normalized(x, mean=recipe.mean, std=recipe.std)), torch.from_numpy(images.y[chosen])


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch; the last one is kept."""
    key = (n, seed, epoch)
    if key not in _orders:
        _orders.clear()
        _orders[key] = np.random.default_rng([seed, 0, epoch]).permutation(n)
    return _orders[key]


def augmented(x: np.ndarray, *, shift: int, mirror: bool, random: np.random.Generator) -> np.ndarray:
    """Return images `(N, C, H, W)` shifted by up to `shift` pixels either way, zeros behind, and half of them mirrored."""
    n, _, height, width = x.shape
    corner = random.integers(0, 2 * shift + 1, (2, n, 1))
    mirrored = (random.random((n, 1)) < 0.5) & mirror
    if not shift and not mirror:
        return x
    padded = np.pad(x, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    rows, columns = corner[0] + np.arange(height), corner[1] + np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    return np.ascontiguousarray(padded[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2))


# steps


def train(
    recipe: Recipe,
    data: Data,
    *,
    seed: int,
    start: dict[str, Any] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 60.0,
    progress: Tell | None = None,
) -> Trainer:
    """Train a recipe's network on data, going on from `checkpoint` where it is there, and return the trainer at its end."""
    trainer = trainer_of(recipe, data, seed=seed, start=start)
    key = f"{recipe.digest} {data.train.digest} {seed}"
    if checkpoint is not None:
        load_checkpoint(checkpoint, trainer, key=key)
    images, held = _set_aside(recipe, data.train)
    n_steps = n_steps_of(recipe, images)[1]
    clock = _Clock(progress, trainer, n_steps)
    saved_s = time.monotonic()
    while trainer.step < n_steps:
        take_step(trainer, images, held, n_steps=n_steps)
        clock.tell()
        if checkpoint is not None and (trainer.step == n_steps or time.monotonic() - saved_s > checkpoint_every_s):
            save_checkpoint(checkpoint, trainer, key=key)
            saved_s = time.monotonic()
    trainer.network.eval()
    return trainer


def _set_aside(recipe: Recipe, images: Images) -> tuple[Images, Images | None]:
    """Return the images to train on, and those that a budget of accuracy is judged by, if there is one."""
    if not isinstance(recipe.method, Lanmax) or recipe.method.accuracy_budget is None:
        return images, None
    n = min(HELD_OUT, len(images) // 4)
    return images.part(slice(0, len(images) - n)), images.part(slice(len(images) - n, None))


class _Clock:
    """Tells progress, with the time that is left at the speed since the first step, which compiles."""

    def __init__(self, tell: Tell | None, trainer: Trainer, n_steps: int) -> None:
        self.to, self.trainer, self.n_steps = tell, trainer, n_steps
        self.first_step, self.first_s = -1, 0.0

    def tell(self) -> None:
        """Tell how far training is."""
        t, now = self.trainer, time.monotonic()
        if self.first_step < 0:
            self.first_step, self.first_s = t.step, now
        elif self.to is not None:
            spent = now - self.first_s
            left = spent / (t.step - self.first_step) * (self.n_steps - t.step)
            self.to(Progress(step=t.step, n_steps=self.n_steps, loss=t.loss, accuracy=t.accuracy, energy_rel=t.rates.energy_rel,
                             spent_s=spent, left_s=left))  # fmt: skip


def learning_rate(recipe: Recipe, step: int, n_steps: int) -> float:
    """Return the rate of a step: a straight line up over the first tenth, then a half cosine down to 0."""
    warm = WARM_SHARE * n_steps
    if step < warm:
        return recipe.schedule.rate * (step + 1.0) / warm
    return recipe.schedule.rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / (n_steps - warm)))


def take_step(trainer: Trainer, images: Images, held: Images | None, *, n_steps: int) -> None:
    """Take one step of the weights, and of the error rates where they are learned."""
    recipe, network = trainer.recipe, trainer.network
    network.train()
    x, y = batch_of(images, recipe, seed=trainer.seed, step=trainer.step)
    trainer.optimizer.zero_grad(set_to_none=True)
    logits = _gradients(trainer, x, y)
    if isinstance(recipe.method, Lanmax):
        _move_rates(trainer, held, n_steps=n_steps)
    for group in trainer.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, trainer.step, n_steps)
    trainer.optimizer.step()
    network.clip()
    correct = float((logits.argmax(1) == y).float().mean())
    trainer.accuracy = correct if math.isnan(trainer.accuracy) else 0.99 * trainer.accuracy + 0.01 * correct
    trainer.step += 1
    if trainer.step % n_steps_of(recipe, images)[0] == 0:
        trainer.history.append(_epoch(trainer))


def _gradients(trainer: Trainer, x: Tensor, y: Tensor) -> Tensor:
    """Run forward and backward with what is read; random bit error training adds the gradient with right bits."""
    recipe, network = trainer.recipe, trainer.network
    clean_too = isinstance(recipe.method, RandomBitErrors)
    if clean_too:
        network.read_right()
        logits = _backward(trainer, x, y)
        if not trainer.started:
            assert isinstance(recipe.method, RandomBitErrors)
            trainer.started = trainer.loss < recipe.method.start_loss
            return logits
    if recipe.method.kind == "reliable":
        network.read_right()
    else:
        chip = trainer.step % recipe.n_chips if recipe.faults.scope == "chip" else trainer.step
        network.read(trainer.rates.p, Drawing(seed=trainer.seed, purpose="training", trial=chip))
    return _backward(trainer, x, y)


def _backward(trainer: Trainer, x: Tensor, y: Tensor) -> Tensor:
    logits = trainer.network(x)
    loss = nn.functional.cross_entropy(logits, y)
    loss.backward()  # type: ignore[no-untyped-call]
    trainer.network.pass_gradients()
    found = float(loss.detach())
    trainer.loss = found if math.isnan(trainer.loss) else 0.99 * trainer.loss + 0.01 * found
    return logits.detach()


def _epoch(trainer: Trainer) -> dict[str, float]:
    found = {"step": float(trainer.step), "loss": trainer.loss, "accuracy": trainer.accuracy, "energy_rel": trainer.rates.energy_rel}
    return found | {"multiplier": trainer.multiplier}


def _move_rates(trainer: Trainer, held: Images | None, *, n_steps: int) -> None:
    """Move error rates and the multiplier; gather domains half way, and settle on the budget at the end of learning."""
    method, rates = trainer.recipe.method, trainer.rates
    assert isinstance(method, Lanmax)
    n_learning = max(1, int(method.learn_share * n_steps))
    if trainer.step >= n_learning:
        return
    falling = max(0.1, 1.0 - trainer.step / n_learning)
    rates.step(trainer.network.rate_slopes(), multiplier=trainer.multiplier, rate=method.rate * falling)
    trainer.multiplier *= math.exp(method.multiplier_rate * _spare(trainer, method, held))
    if method.n_domains is not None and trainer.step == n_learning // 2:
        rates.gather(method.n_domains)
    if trainer.step == n_learning - 1 and method.energy_budget_rel is not None:
        rates.moved_to(method.energy_budget_rel)


def _spare(trainer: Trainer, method: Lanmax, held: Images | None) -> float:
    """Return by how much the multiplier should rise, -1 to 1: the energy over its budget, or the accuracy above what must be held."""
    if method.energy_budget_rel is not None:
        return max(-1.0, min(1.0, 4.0 * (trainer.rates.energy_rel / method.energy_budget_rel - 1.0)))
    assert held is not None
    assert method.accuracy_budget is not None
    if trainer.step % HELD_OUT_EVERY == 0:
        _look_at_held(trainer, held)
    return max(-1.0, min(1.0, 50.0 * (trainer.held_accuracy - method.accuracy_budget)))


@torch.no_grad()
def _look_at_held(trainer: Trainer, held: Images) -> None:
    """Renew the running accuracy on images set aside, read with wrong bits."""
    recipe, network = trainer.recipe, trainer.network
    chosen = np.random.default_rng([trainer.seed, 2, trainer.step]).integers(0, len(held), HELD_OUT_BATCH)
    network.eval()
    network.read(trainer.rates.p, Drawing(seed=trainer.seed, purpose="held out", trial=trainer.step))
    logits = network(torch.from_numpy(normalized(held.x[chosen], mean=recipe.mean, std=recipe.std)))
    network.train()
    found = float((logits.argmax(1) == torch.from_numpy(held.y[chosen])).float().mean())
    before = trainer.held_accuracy
    trainer.held_accuracy = found if math.isnan(before) else FORGET * before + (1.0 - FORGET) * found
