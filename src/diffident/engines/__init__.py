"""Where the work is done other than in this process: one file an engine."""
