"""What everything else is made of: types, the model as a vector, masks, exact sums, random numbers."""
