"""The stages of the compiler. Each takes a graph and returns one; they never import each other."""
