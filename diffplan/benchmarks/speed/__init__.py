"""`diffplan bench`: how fast plans are made, what they deliver, and how near that is to what the machine can do.

timing      calls in turn, a row of the table for each
plans       a planner's batches, energies, few evaluations, longer plans, and its training
machine     matrix products: the peak of the machine, and what of it the sampler uses; steps of the worlds
process     processes of their own: command to first plan, peak memory, memory over many calls
unet        Diffuser's U-Net here and in PyTorch (`torch_unet`), eager and compiled
run         the settings, and all of it in one file
"""
