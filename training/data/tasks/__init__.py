"""The five tasks as data (paper, section 2.3 and 3.1): from a sample to a source, a prompt and a target."""
