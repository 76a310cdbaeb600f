"""One recipe at many settings: which runs that takes, the runs themselves, and what they say."""
