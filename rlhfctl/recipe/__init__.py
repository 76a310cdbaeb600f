"""The schema and the loading of recipes; imports no torch."""
