"""From score distributions to what each layer keeps, and when one collapses."""
