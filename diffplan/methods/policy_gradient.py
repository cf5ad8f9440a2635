"""Policies that learn to plan: trained by acting, in the environment or a model of it, and held to behaviour.

A policy pi starts as behaviour's pi0. With a plan's score for pay and a price k_t for where behaviour is left, strength
c asks for

    max  J = E_pi[ c score(x) - sum_t k_t ] / (1 + c),    k_t = KL(pi(. | o_t, t) || pi0(. | o_t, t))    (84)

(1 + c) changes no maximum, but bounds what is optimised at any strength; at c = 0 the policy stays as it is. The weight
of the score reaches c / (1 + c) evenly over the first half of training, while that of the price falls to 1 / (1 + c):
paid in full at once, a policy settles for the first good plan that it finds. The sum of k_t is the exact KL of
trajectories. Where moves have certain outcomes the maximum is the tilt p(x) exp(c score(x)) of behaviour's plans, if
the policy can express it (Levine 2018); where they have not, a policy cannot plan luck.

Pay comes with the last action, prices as they fall due, r_t = -k_t+1 / (1 + c) and r_h = c score / (1 + c). An action
answers for what comes after it, and a price also depends on the policy directly:

    grad J = E sum_t [ A_t grad log pi(a_t | o_t, t) - grad k_t / (1 + c) ],    A_t = sum_t'>=t r_t' - b_t    (85)

for any b_t that knows nothing of a_t (Williams 1992): here the mean over the other rollouts from the same start (Kool
et al. 2019). (85) is also the first gradient of the clipped objective, on which several steps may be taken,

    E sum_t [ min(rho_t A_t, clip(rho_t, 1 - e, 1 + e) A_t) - k_t / (1 + c) ],    rho_t = pi / pi_old (a_t)    (86)

(Schulman et al. 2017, PPO, eq. 7), with a learned value V of what is still to come, and the advantage

    A_t = sum_l trace^l (r_t+l + V(o_t+l+1, t+l+1) - V(o_t+l, t+l))                                      (87)

(Schulman et al. 2016, GAE, eq. 16, undiscounted). Instead of actions, the observations visited may be held to those of
the data (Laidlaw et al. 2024, arXiv 2403.03185), by a discriminator d that learns to tell the policy's from the data's:

    k_t = log d / (1 - d) (o_t, t) / h -> log p_pi(o_t, t) / p_data(o_t, t) / h,    E_pi sum_t k_t -> KL(p_pi || p_data)

of occupancies p(o, t), each one distribution of observation and time (88). That depends on the policy but through
where it leads: its direct gradient is 0 in the mean. Which of the actions that lead there it takes, nothing holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffplan.count import counted, uncounted
from diffplan.guide import Proxy
from diffplan.methods.base import Plans, Problem, need, over
from diffplan.methods.guidance import regression
from diffplan.policy import Distribution, Policy, Rollout, follow, times
from diffplan.types import Params, PRNGKey, Scalar

WIDTH = 32
"""Of the hidden layers of the critics: the value, and the discriminator."""


class Experience(NamedTuple):
    """What (86) needs of one rollout."""

    observations: Float[Array, "h o"]
    actions: Float[Array, "h a"]
    old: Distribution
    """Of the policy that acted."""
    behaviour: Distribution | None
    """None where actions have no price."""
    advantage: Float[Array, "h"]


class Net(NamedTuple):
    """Something that is trained, and its optimiser's memory."""

    params: Params
    memory: optax.OptState


class Learner(NamedTuple):
    """What is carried from update to update. The value is of (87), the discriminator of (88)."""

    policy: Net
    value: Net
    discriminator: Net


def distributions(policy: Policy, observations: Float[Array, "h o"]) -> Distribution:
    """The distributions of the actions along a rollout."""
    return jax.vmap(policy.distribution)(observations, times(len(observations)))


def critic(key: PRNGKey, observation_dim: int) -> Params:
    """Weights of a critic's two hidden layers and of its output, which is 0 at first."""
    keys, sizes = jax.random.split(key, 2), ((observation_dim + 1, WIDTH), (WIDTH, WIDTH))
    hidden = [
        {"weight": jax.random.normal(key, size) / jnp.sqrt(size[0]), "bias": jnp.zeros(WIDTH)}
        for key, size in zip(keys, sizes, strict=True)
    ]
    return {"hidden": hidden, "out": jnp.zeros(WIDTH), "shift": jnp.zeros(())}


def judged(params: Params, policy: Policy, observations: Float[Array, "h o"]) -> Float[Array, "h"]:
    """What a critic says of observations and their times; it sees them scaled, as the policy does."""

    def one(observation: Float[Array, "o"], time: Scalar) -> Scalar:
        u = jnp.append((observation - policy.observation_mean) / policy.observation_std, time)
        for layer in params["hidden"]:
            u = jnp.tanh(u @ layer["weight"] + layer["bias"])
        return counted("network_evals", u @ params["out"] + params["shift"])

    return jax.vmap(one)(observations, times(len(observations)))


def leave_one_out(pay: Float[Array, "k h"]) -> Float[Array, "k h"]:
    """The advantage of (85) for k rollouts from one start: the pay to come, less its mean over the others."""
    to_come = jnp.flip(jnp.cumsum(jnp.flip(pay, 1), 1), 1)
    k = len(pay)
    return (to_come - to_come.mean(axis=0)[None]) * k / (k - 1)


def generalised(pay: Float[Array, "h"], values: Float[Array, "h"], trace: float) -> Float[Array, "h"]:
    """The advantage (87) along one rollout, after which nothing is to come."""
    surprise = pay + jnp.append(values[1:], 0.0) - values
    back = lambda after, now: (now + trace * after, now + trace * after)
    return jax.lax.scan(back, jnp.zeros(()), surprise, reverse=True)[1]


def clipped(policy: Policy, rollout: Experience, clip: float, price: Scalar) -> Scalar:
    """The objective (86) of one rollout; `price` is 1 / (1 + c)."""

    def gain(distribution: Distribution, old: Distribution, action: Float[Array, "a"], advantage: Scalar) -> Scalar:
        rho = jnp.exp(policy.log_prob(distribution, action) - policy.log_prob(old, action))
        return jnp.minimum(rho * advantage, jnp.clip(rho, 1 - clip, 1 + clip) * advantage)

    new = distributions(policy, rollout.observations)
    total = jnp.sum(jax.vmap(gain)(new, rollout.old, rollout.actions, rollout.advantage))
    return total if rollout.behaviour is None else total - price * jnp.sum(jax.vmap(policy.kl)(new, rollout.behaviour))


def discriminator_loss(
    params: Params, policy: Policy, visited: Float[Array, "b h o"], data: Float[Array, "b h o"]
) -> Scalar:
    """The loss of (88): the cross-entropy of whose an observation is. Its best logit is that of d."""
    logits = jax.vmap(judged, (None, None, 0))
    ours, theirs = logits(params, policy, visited), logits(params, policy, data)
    return jnp.mean(jax.nn.softplus(-ours)) + jnp.mean(jax.nn.softplus(theirs))


def descend(rule: optax.GradientTransformation, loss: Callable[[Params], Scalar], net: Net, steps: int) -> Net:
    """Some steps down a loss."""

    def body(net: Net, _: None) -> tuple[Net, None]:
        step, memory = rule.update(jax.grad(loss)(net.params), net.memory, net.params)
        return Net(optax.apply_updates(net.params, step), memory), None

    return jax.lax.scan(body, net, None, length=steps)[0]


@dataclass(frozen=True)
class PolicyGradient:
    """Equations (84) to (88): REINFORCE as it stands, PPO with ``epochs=4, trace=0.95``; trained for each strength."""

    name: str
    strengths: tuple[float, ...]
    epochs: int = 1
    """Steps on (86) that a batch of rollouts is used for."""
    trace: float | None = None
    """Of (87), with a learned value; None for the leave-one-out baseline of (85)."""
    regulariser: Literal["action", "occupancy"] = "action"
    """What is held: every action to behaviour's (84), or the observations visited to the data's (88)."""
    updates: int = 300
    """Batches of rollouts, each from the latest policy."""
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
        if self.trace is None and self.rollouts < 2:
            raise ValueError(f"rollouts={self.rollouts}: must be at least 2, for a baseline from the others")

    def __call__(
        self, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strengths: Float[Array, "s"]
    ) -> Plans:
        """Trains from the starts, with the same noise for every strength; then one rollout a start is its plan."""
        key_train, key_plan = jax.random.split(key)
        behaviour, dynamics = need(problem, "behaviour", self.name), need(problem, self.world, self.name)
        keys = jax.random.split(key_plan, len(starts))

        def one(strength: Scalar) -> tuple[Float[Array, "n h d"], Float[Array, "n"]]:
            policy = behaviour.replace(params=self.train(key_train, problem, starts, strength))
            last = jax.vmap(follow, (None, None, 0, 0, None))(policy, dynamics, keys, starts, times(problem.horizon))
            with uncounted():
                reference = jax.vmap(distributions, (None, 0))(behaviour, last.trajectory.observations)
            spent = jax.vmap(jax.vmap(policy.kl))(last.distributions, reference)
            return problem.codec.encode(last.trajectory), spent.sum(axis=1)

        return Plans.of(*over(one, strengths))

    def train(self, key: PRNGKey, problem: Problem, starts: Float[Array, "n o"], strength: Scalar) -> Params:
        """The parameters of the policy for one strength: behaviour's own for 0."""
        behaviour, dynamics = need(problem, "behaviour", self.name), need(problem, self.world, self.name)
        trajectories, score = jnp.repeat(starts, self.rollouts, axis=0), self.proxy(problem).score
        rule = optax.adam(optax.cosine_decay_schedule(self.rate / self.epochs, self.updates * self.epochs))

        def update(learner: Learner, inputs: tuple[PRNGKey, Scalar]) -> tuple[Learner, None]:
            (key_act, key_data), weight = jax.random.split(inputs[0]), inputs[1]
            policy = behaviour.replace(params=learner.policy.params)
            keys = jax.random.split(key_act, len(trajectories))
            acted = jax.vmap(follow, (None, None, 0, 0, None))(
                policy, dynamics, keys, trajectories, times(problem.horizon)
            )
            plans, old, _ = acted
            reference, cost, discriminator = self.priced(key_data, problem, acted, learner.discriminator)
            scores = jax.vmap(score)(problem.codec.encode(plans))
            pay = jnp.concatenate([(weight - 1) * cost[:, 1:], weight * scores[:, None]], axis=1)
            advantage, value = self.credited(behaviour, plans.observations, pay, learner.value)
            batch = Experience(plans.observations, plans.actions, old, reference, advantage)

            def loss(params: Params) -> Scalar:
                objective = partial(clipped, behaviour.replace(params=params), clip=self.clip, price=1 - weight)
                return -jnp.mean(jax.vmap(objective)(batch))

            learned = descend(rule, loss, learner.policy, self.epochs)
            # at 0 the gradient is 0 but for rounding, of which Adam would make whole steps
            kept = jax.tree.map(lambda new, old: jnp.where(strength > 0, new, old), learned, learner.policy)
            return Learner(kept, value, discriminator), None

        key_nets, key_updates = jax.random.split(key)
        first = Learner(Net(behaviour.params, rule.init(behaviour.params)), *self.critics(key_nets, starts.shape[1]))
        # a discriminator that knows nothing yet cannot hold a policy back: there the score leads from the beginning
        rise = jnp.minimum(1.0, jnp.linspace(0.0 if self.regulariser == "action" else 1.0, 2.0, self.updates))
        weights = rise * strength / (1 + strength)
        return jax.lax.scan(update, first, (jax.random.split(key_updates, self.updates), weights))[0].policy.params

    def critics(self, key: PRNGKey, observation_dim: int) -> tuple[Net, Net]:
        """The value and the discriminator before training: 0 everywhere."""
        value, discriminator = (critic(each, observation_dim) for each in jax.random.split(key))
        rule = optax.adam(self.critic_rate)
        return Net(value, rule.init(value)), Net(discriminator, rule.init(discriminator))

    def priced(
        self, key: PRNGKey, problem: Problem, acted: Rollout, discriminator: Net
    ) -> tuple[Distribution | None, Float[Array, "b h"], Net]:
        """Behaviour's distributions if they price actions, the price k_t of every row, and the discriminator
        trained on.
        """
        behaviour, visited = need(problem, "behaviour", self.name), acted.trajectory.observations
        if self.regulariser == "action":
            reference = jax.vmap(distributions, (None, 0))(behaviour, visited)
            return reference, jax.vmap(jax.vmap(behaviour.kl))(acted.distributions, reference), discriminator
        windows = need(problem, "data", self.name)
        chosen = jax.random.choice(key, len(windows), (len(visited),))
        data = problem.codec.decode(windows[chosen]).observations
        loss = lambda params: discriminator_loss(params, behaviour, visited, data)
        discriminator = descend(optax.adam(self.critic_rate), loss, discriminator, self.critic_steps)
        logits = jax.vmap(judged, (None, None, 0))(discriminator.params, behaviour, visited)
        return None, logits / problem.horizon, discriminator

    def credited(
        self, policy: Policy, visited: Float[Array, "b h o"], pay: Float[Array, "b h"], value: Net
    ) -> tuple[Float[Array, "b h"], Net]:
        """The advantage of every action, (85) or (87), and the value trained on."""
        if self.trace is None:
            by_start = pay.reshape(-1, self.rollouts, pay.shape[1])
            return jax.vmap(leave_one_out)(by_start).reshape(pay.shape), value
        values = jax.vmap(judged, (None, None, 0))
        now = values(value.params, policy, visited)
        advantage = jax.vmap(partial(generalised, trace=self.trace))(pay, now)
        loss = lambda params: jnp.mean((values(params, policy, visited) - now - advantage) ** 2)
        return advantage, descend(optax.adam(self.critic_rate), loss, value, self.critic_steps)
