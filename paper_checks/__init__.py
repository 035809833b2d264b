"""Claims of the theory's papers, each checked by computation and by sampled networks.

``python -m paper_checks`` prints them, one module a claim. Where experiment and formula differ, the
experiment wins and the verdict says so with numbers.
"""
