"""Several processes: ranks, summed gradients, a base that they share."""
