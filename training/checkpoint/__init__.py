"""What makes a run killable: checkpoints, the folder of a run, and folders that refuse what does not belong to them."""
