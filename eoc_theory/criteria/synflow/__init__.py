"""SynFlow: rounds of pruning on positive networks, chains and graphs."""
