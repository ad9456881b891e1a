"""Pages of docs/ that are made from the schema and the recipes, and the folder that MkDocs builds its site from.

usage: python -m scripts.docs            rewrite docs/configuration.md and docs/recipes.md
       python -m scripts.docs --stage    the pages, and whatever they link to, into build/site_pages for MkDocs
"""
