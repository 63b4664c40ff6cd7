"""Training beside an encoder's features of the target (CoReDi and two relatives): an option of a stage."""
