"""`ananse admin`: what an operator sees of the running service, and what may be done to it by hand."""
