"""The materials of all other packages: types, the model as a vector, masks, exact sums, random numbers."""
