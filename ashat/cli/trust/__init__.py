"""`deploy trust`: setting up who signs, changing it in ceremonies, and showing how it stands."""
