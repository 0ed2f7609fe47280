"""The experiments of the papers, one script each, and the tables made from their results."""
