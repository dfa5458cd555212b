"""A module and data sets of the user's own, in the process that holds them."""
