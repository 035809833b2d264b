"""All of torch: models read, built, initialised, measured, pruned and rescaled."""
