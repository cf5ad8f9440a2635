"""Policies that learn to plan: they act in the environment or in a model of it, and are held to behaviour.

A policy pi starts as the behaviour policy pi0. Its reward is the score of its plan; leaving behaviour costs a penalty
k_t at each step. Strength c asks for

    max  J = E_pi[ c score(x) - sum_t k_t ] / (1 + c),    k_t = KL(pi(. | o_t, t) || pi0(. | o_t, t))    (84)

in the mean over starts of behaviour (163). Dividing by 1 + c changes no maximum, and bounds the objective at any
strength; at c = 0 the policy stays as it is. Over the first half of training the weight of the score rises evenly to
c / (1 + c), and that of the penalty falls to 1 / (1 + c): with the full weight from the beginning, a policy settles for
the first good plan that it meets. The mean of the sum of k_t is the exact KL of the policy's rollouts from behaviour's.
Where actions have certain outcomes the maximum is the tilt p(x) exp(c score(x)) of behaviour's plans, if the policy can
express it (Levine 2018). Where outcomes are random, a policy cannot plan luck.

The score comes with the last action and each penalty with the next one, r_t = -k_t+1 / (1 + c) and
r_h = c score / (1 + c). The gradient credits an action with the rewards after it, and a penalty also depends on the
policy directly:

    grad J = E sum_t [ A_t grad log pi(a_t | o_t, t) - grad k_t / (1 + c) ],    A_t = sum_t'>=t r_t' - b_t    (85)

for any b_t that does not depend on a_t (Williams 1992). Here b_t is the mean over the other rollouts from the same
start (Kool et al. 2019). (85) is also the first gradient of the clipped objective, on which several steps may be taken,

    E sum_t [ min(rho_t A_t, clip(rho_t, 1 - e, 1 + e) A_t) - k_t / (1 + c) ],    rho_t = pi / pi_old (a_t)    (86)

(Schulman et al. 2017, PPO, eq. 7), with a learned value V of the rewards to come, and the advantage

    A_t = sum_l lambda^l (r_t+l + V(o_t+l+1, t+l+1) - V(o_t+l, t+l))                                     (87)

(Schulman et al. 2016, GAE, eq. 16, undiscounted). Instead of the actions, the visited observations may be held to those
of the data (Laidlaw et al. 2024, arXiv 2403.03185). A discriminator d learns to tell the policy's observations from the
data's:

    k_t = log d / (1 - d) (o_t, t) / h -> log p_pi(o_t, t) / p_data(o_t, t) / h,    E_pi sum_t k_t -> KL(p_pi || p_data)

of occupancies p(o, t), each one distribution of observation and time (88). This penalty depends on the policy only
through the observations that it visits: its direct gradient is 0 in the mean. The policy may use any action that leads
to the same observations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffplan.count import counted, uncounted
from diffplan.guide import Proxy
from diffplan.methods.base import (
    Grid,
    Learned,
    Plans,
    Problem,
    Starts,
    behaviour_starts,
    compiled,
    fit_and_draw,
    need,
    over,
)
from diffplan.methods.guidance import regression
from diffplan.policy import Distribution, Policy, Rollout, follow, times
from diffplan.types import Params, PRNGKey, Scalar

WIDTH = 32
"""Of the hidden layers of the critics: the value, and the discriminator."""


class Experience(NamedTuple):
    """One rollout, as (86) reads it."""

    observations: Float[Array, "h o"]
    actions: Float[Array, "h a"]
    old: Distribution
    """Of the policy that acted."""
    behaviour: Distribution | None
    """None where actions have no penalty."""
    advantage: Float[Array, "h"]


class Net(NamedTuple):
    """Something that is trained, and its optimiser's state."""

    params: Params
    state: optax.OptState


class Learner(NamedTuple):
    """The networks, from update to update. The value is of (87), the discriminator of (88)."""

    policy: Net
    value: Net
    discriminator: Net


def distributions(policy: Policy, observations: Float[Array, "h o"]) -> Distribution:
    """The distributions of the actions along a rollout."""
    return jax.vmap(policy.distribution)(observations, times(len(observations)))


def init_critic(key: PRNGKey, observation_dim: int) -> Params:
    """Weights of a critic's two hidden layers and of its output, which is 0 at first."""
    keys, sizes = jax.random.split(key, 2), ((observation_dim + 1, WIDTH), (WIDTH, WIDTH))
    hidden = [
        {"weight": jax.random.normal(key, size) / jnp.sqrt(size[0]), "bias": jnp.zeros(WIDTH)}
        for key, size in zip(keys, sizes, strict=True)
    ]
    return {"hidden": hidden, "out": jnp.zeros(WIDTH), "shift": jnp.zeros(())}


def critic_output(params: Params, policy: Policy, observations: Float[Array, "h o"]) -> Float[Array, "h"]:
    """A critic's output at observations and their times, scaled as the policy's inputs are."""

    def one(observation: Float[Array, "o"], time: Scalar) -> Scalar:
        u = jnp.append((observation - policy.observation_mean) / policy.observation_std, time)
        for layer in params["hidden"]:
            u = jnp.tanh(u @ layer["weight"] + layer["bias"])
        return counted("network_evals", u @ params["out"] + params["shift"])

    return jax.vmap(one)(observations, times(len(observations)))


def leave_one_out(rewards: Float[Array, "k h"]) -> Float[Array, "k h"]:
    """The advantage of (85) for k rollouts from one start: the rewards to come, less their mean over the others."""
    returns = jnp.flip(jnp.cumsum(jnp.flip(rewards, 1), 1), 1)
    k = len(rewards)
    return (returns - returns.mean(axis=0)[None]) * k / (k - 1)


def gae(rewards: Float[Array, "h"], values: Float[Array, "h"], gae_lambda: float) -> Float[Array, "h"]:
    """The advantage (87) along one rollout, which ends with its last reward."""
    td_errors = rewards + jnp.append(values[1:], 0.0) - values
    back = lambda after, now: (now + gae_lambda * after, now + gae_lambda * after)
    return jax.lax.scan(back, jnp.zeros(()), td_errors, reverse=True)[1]


def clipped(policy: Policy, rollout: Experience, clip: float, penalty: Scalar) -> Scalar:
    """The objective (86) of one rollout; `penalty` is the weight of KL, 1 / (1 + c)."""

    def gain(distribution: Distribution, old: Distribution, action: Float[Array, "a"], advantage: Scalar) -> Scalar:
        rho = jnp.exp(policy.log_prob(distribution, action) - policy.log_prob(old, action))
        return jnp.minimum(rho * advantage, jnp.clip(rho, 1 - clip, 1 + clip) * advantage)

    new = distributions(policy, rollout.observations)
    total = jnp.sum(jax.vmap(gain)(new, rollout.old, rollout.actions, rollout.advantage))
    if rollout.behaviour is None:
        return total
    return total - penalty * jnp.sum(jax.vmap(policy.kl)(new, rollout.behaviour))


def discriminator_loss(
    params: Params, policy: Policy, visited: Float[Array, "b h o"], data: Float[Array, "b h o"]
) -> Scalar:
    """The loss of (88): the cross-entropy of an observation's label, policy or data. Its best logit is that of d."""
    logits = jax.vmap(critic_output, (None, None, 0))
    ours, theirs = logits(params, policy, visited), logits(params, policy, data)
    return jnp.mean(jax.nn.softplus(-ours)) + jnp.mean(jax.nn.softplus(theirs))


def descend(rule: optax.GradientTransformation, loss: Callable[[Params], Scalar], net: Net, steps: int) -> Net:
    """Some steps down a loss."""

    def body(net: Net, _: None) -> tuple[Net, None]:
        step, state = rule.update(jax.grad(loss)(net.params), net.state, net.params)
        return Net(optax.apply_updates(net.params, step), state), None

    return jax.lax.scan(body, net, None, length=steps)[0]


@dataclass(frozen=True)
class PolicyGradient:
    """Equations (84) to (88), trained for each strength: REINFORCE; PPO with ``epochs=4, gae_lambda=0.95``."""

    name: str
    strengths: tuple[float, ...]
    epochs: int = 1
    """Steps on (86) that a batch of rollouts is used for."""
    gae_lambda: float | None = None
    """lambda of (87), with a learned value; None for the leave-one-out baseline of (85)."""
    regulariser: Literal["action", "occupancy"] = "action"
    """What stays near: every action to behaviour's (84), or the observations visited to the data's (88)."""
    updates: int = 300
    """Batches of rollouts, each from the latest policy."""
    train_starts: int = 32
    """Starts of behaviour in each batch."""
    rollouts: int = 4
    """Rollouts a start in each batch."""
    rate: float = 1e-2
    """Learning rate of the policy at first, shared out among the epochs; it decays to 0 along a cosine."""
    critic_rate: float = 1e-2
    """Learning rate of the value and of the discriminator."""
    critic_steps: int = 2
    """Their steps a batch."""
    clip: float = 0.2
    """e of (86)."""
    world: Literal["dynamics", "model"] = "dynamics"
    """Where it acts: the part of the problem of this name."""
    proxy: Callable[[Problem], Proxy] = regression
    strength_name: str = "1 / KL coefficient"
    shared: bool = False

    def __post_init__(self) -> None:
        if self.gae_lambda is None and self.rollouts < 2:
            raise ValueError(f"rollouts={self.rollouts}: must be at least 2, for a baseline from the others")

    def __call__(self, key: PRNGKey, problem: Problem, starts: Starts, strengths: Grid) -> Plans:
        """Trains a policy for each strength, then draws its plans."""
        return fit_and_draw(self, key, problem, starts, strengths)

    def longer(self, factor: int) -> "PolicyGradient":
        """The same method with so many times as many updates; its schedules are as much longer."""
        return replace(self, updates=factor * self.updates)

    @compiled
    def fit(self, key: PRNGKey, problem: Problem, strengths: Grid) -> Learned:
        """The parameters of the policy for each strength, trained with the same noise."""
        return over(lambda strength: self.train(key, problem, strength), strengths)

    @compiled
    def draw(self, key: PRNGKey, problem: Problem, learned: Learned, starts: Starts, strengths: Grid) -> Plans:
        """One rollout a start is its plan."""
        behaviour, dynamics = need(problem, "behaviour", self.name), need(problem, self.world, self.name)
        keys, clock = jax.random.split(key, len(starts)), times(problem.horizon)

        def one(params: Params) -> tuple[Float[Array, "n h d"], Float[Array, "n"]]:
            policy = behaviour.replace(params=params)
            last = jax.vmap(follow, (None, None, 0, 0, None))(policy, dynamics, keys, starts, clock)
            with uncounted():
                reference = jax.vmap(distributions, (None, 0))(behaviour, last.trajectory.observations)
            nats = jax.vmap(jax.vmap(policy.kl))(last.distributions, reference)
            return problem.codec.encode(last.trajectory), nats.sum(axis=1)

        return Plans.of(*over(one, learned))

    def train(self, key: PRNGKey, problem: Problem, strength: Scalar) -> Params:
        """The parameters of the policy for one strength: behaviour's own for 0."""
        behaviour, dynamics = need(problem, "behaviour", self.name), need(problem, self.world, self.name)
        score, clock = self.proxy(problem).score, times(problem.horizon)
        rule = optax.adam(optax.cosine_decay_schedule(self.rate / self.epochs, self.updates * self.epochs))

        def update(learner: Learner, inputs: tuple[PRNGKey, Scalar]) -> tuple[Learner, None]:
            (key_starts, key_act, key_data), weight = jax.random.split(inputs[0], 3), inputs[1]
            policy = behaviour.replace(params=learner.policy.params)
            starts = behaviour_starts(key_starts, problem, self.train_starts, self.name)
            starts = jnp.repeat(starts, self.rollouts, axis=0)
            keys = jax.random.split(key_act, len(starts))
            rollouts = jax.vmap(follow, (None, None, 0, 0, None))(policy, dynamics, keys, starts, clock)
            plans, old, _ = rollouts
            reference, penalty, discriminator = self.penalties(key_data, problem, rollouts, learner.discriminator)
            scores = jax.vmap(score)(problem.codec.encode(plans))
            rewards = jnp.concatenate([(weight - 1) * penalty[:, 1:], weight * scores[:, None]], axis=1)
            advantage, value = self.advantages(behaviour, plans.observations, rewards, learner.value)
            batch = Experience(plans.observations, plans.actions, old, reference, advantage)

            def loss(params: Params) -> Scalar:
                objective = partial(clipped, behaviour.replace(params=params), clip=self.clip, penalty=1 - weight)
                return -jnp.mean(jax.vmap(objective)(batch))

            learned = descend(rule, loss, learner.policy, self.epochs)
            # at 0 the gradient is 0 but for rounding, of which Adam would make whole steps
            kept = jax.tree.map(lambda new, old: jnp.where(strength > 0, new, old), learned, learner.policy)
            return Learner(kept, value, discriminator), None

        key_nets, key_updates = jax.random.split(key)
        critics = self.critics(key_nets, problem.codec.observation_dim)
        first = Learner(Net(behaviour.params, rule.init(behaviour.params)), *critics)
        # a discriminator that knows nothing yet cannot hold a policy back: there the score leads from the beginning
        rise = jnp.minimum(1.0, jnp.linspace(0.0 if self.regulariser == "action" else 1.0, 2.0, self.updates))
        weights = rise * strength / (1 + strength)
        return jax.lax.scan(update, first, (jax.random.split(key_updates, self.updates), weights))[0].policy.params

    def critics(self, key: PRNGKey, observation_dim: int) -> tuple[Net, Net]:
        """The value and the discriminator before training: 0 everywhere."""
        value, discriminator = (init_critic(each, observation_dim) for each in jax.random.split(key))
        rule = optax.adam(self.critic_rate)
        return Net(value, rule.init(value)), Net(discriminator, rule.init(discriminator))

    def penalties(
        self, key: PRNGKey, problem: Problem, rollouts: Rollout, discriminator: Net
    ) -> tuple[Distribution | None, Float[Array, "b h"], Net]:
        """(behaviour's distributions, for a penalty on actions; k_t of every row; the discriminator, trained on)."""
        behaviour, visited = need(problem, "behaviour", self.name), rollouts.trajectory.observations
        if self.regulariser == "action":
            reference = jax.vmap(distributions, (None, 0))(behaviour, visited)
            return reference, jax.vmap(jax.vmap(behaviour.kl))(rollouts.distributions, reference), discriminator
        windows = need(problem, "data", self.name)
        chosen = jax.random.choice(key, len(windows), (len(visited),))
        data = problem.codec.decode(windows[chosen]).observations
        loss = lambda params: discriminator_loss(params, behaviour, visited, data)
        discriminator = descend(optax.adam(self.critic_rate), loss, discriminator, self.critic_steps)
        logits = jax.vmap(critic_output, (None, None, 0))(discriminator.params, behaviour, visited)
        return None, logits / problem.horizon, discriminator

    def advantages(
        self, policy: Policy, visited: Float[Array, "b h o"], rewards: Float[Array, "b h"], value: Net
    ) -> tuple[Float[Array, "b h"], Net]:
        """(the advantage of every action, by (85) or (87); the value, trained on)."""
        if self.gae_lambda is None:
            by_start = rewards.reshape(-1, self.rollouts, rewards.shape[1])
            return jax.vmap(leave_one_out)(by_start).reshape(rewards.shape), value
        values = jax.vmap(critic_output, (None, None, 0))
        now = values(value.params, policy, visited)
        advantage = jax.vmap(partial(gae, gae_lambda=self.gae_lambda))(rewards, now)
        loss = lambda params: jnp.mean((values(params, policy, visited) - now - advantage) ** 2)
        return advantage, descend(optax.adam(self.critic_rate), loss, value, self.critic_steps)
