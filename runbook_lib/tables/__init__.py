"""Are the rows the same on both sides, and is anything missing? Comparisons of databases, done in the databases."""
