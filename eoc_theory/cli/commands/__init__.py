"""What each command does with its parsed options; each module is imported for its own commands alone."""
