"""What makes a run killable: checkpoints, the folder of a run, and folders that refuse what they are not of."""
