"""Training data, from files to encoded samples: formats -> sets -> labels -> tasks -> encoded, each knows those before."""
