"""The project's figures: ``python -m figures`` draws them from the small result files in ``figures/data``.

One module a figure, each with a `compute` that makes its results anew (``--recompute``) and a `draw` that
shows them. The rendered PNG and PDF files lie beside the scripts.
"""
