"""The base of all other packages: types, the model as a vector, masks, sums, random numbers."""
