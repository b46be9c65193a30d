"""Recipes made to run: read one, train what it names, measure it, and write the tables of the documents."""
