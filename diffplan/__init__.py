"""diffplan: planning with diffusion, and how hard a plan can be pushed towards a learned reward before it breaks.

A plan is an array ``x[h, d]``: h steps of normalised observation and action. Everything is about one noun, the
**denoiser** ``D(x, sigma) = E[x0 | x_sigma = x]``:

    x_sigma  = x0 + sigma * eps                                                          (1)
    score    = (D(x, sigma) - x) / sigma^2                                               (2)
    D_guided = x + prior * (D(x, sigma) - x) + guide * sigma^2 * grad g(x, sigma)        (3)

Guidance and the pinning of starts and goals are functions from a denoiser to a denoiser; samplers know nothing of them:

    from diffplan import denoise, guide, noise
    from diffplan.samplers import Sampler, sample

    denoiser = denoise.pinned(guide.guided(prior, energy, strengths), pins)
    x, info = sample(key, denoiser, Sampler(noise.karras(32, 0.02, 10.0), (h, d)))

Public names, by module. Signatures are for one plan: batch with `jax.vmap`.

    types      Denoise, Energy, Strengths, Pins, Trajectory
    codec      Codec, Cells
    noise      karras, log_linear, LogNormal, LogUniform
    denoise    Edm, CategoricalDenoiser, pinned, noised, loss
    guide      guided, budget, dps, raw, weighted, mixture, Proxy, Learned, Ensemble, Sum
    samplers   Sampler, sample, STEPS: ancestral, sde_2m, ddim, heun, dpmpp_2m
    dynamics   Dynamics, imagine
    policy     Policy, act
    count      count, counted
    smc        particles, tds, annealed, fk_steering, svdd, interval
    discrete   Noise, reverse, first_order
    resolve    resolve: an object, a known name, or file.py:NAME
    methods    Method, Problem, Plans, Prior, Guided, BestOfN, Ascent, catalogue, chosen
    oracle     distribution, gaussian, mixture, tabular, control
    metrics    returns, validity, kl, diversity, statistics, pareto
    learn      data, train, reward, raters, contrastive, conditional, world, value, clone, checkpoint
    models     Mixer, Messages, Value, TemporalUNet, to_pure, count
    studies    pressure, held_out_class, potemkin, pareto
    report     figure, axes, page, table, budgets

Importing this package imports none of them, and neither jax, flax nor matplotlib.
"""

# pyright: reportUnsupportedDunderAll=false
# these are modules, which `from diffplan import guide` imports when it is asked to
__all__ = [
    "types",
    "codec",
    "noise",
    "denoise",
    "guide",
    "samplers",
    "dynamics",
    "policy",
    "count",
    "smc",
    "discrete",
    "resolve",
    "methods",
    "oracle",
    "metrics",
    "learn",
    "models",
    "studies",
    "report",
]
