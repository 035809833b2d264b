"""SynFlow: what passes through a weight in a network of absolute weights, in rounds or in one shot."""
