# What all configs share, in MMPretrain and MMDetection alike.
custom_imports = dict(imports=['mmadder'], allow_failed_imports=False)
custom_hooks = [
    # Adder gradients ignore the loss scale of mixed precision and of gradient
    # accumulation: this hook hands it to the layers.
    dict(type='LossScaleHook'),
    # They have norms of hundreds: where gradients are clipped, not theirs.
    dict(type='AdderClipGradHook'),
    # Warn of settings with which they cannot learn.
    dict(type='AdderCheckHook'),
    # Test and resume only with a checkpoint in which every key fits.
    dict(type='CheckpointCheckHook'),
]
