"""The journal of a sweep, from which everything else about the sweep can be rebuilt, and the folder that it is in."""
