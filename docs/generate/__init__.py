"""What turns the pages of docs/ into a site: running their code, writing what the registries say, docstrings.

``python -m docs.generate`` runs the code of every page and compares what it prints with what the page shows.
"""
