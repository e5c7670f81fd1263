"""Models behind HTTP: who is asked, what is answered, and what users did since.

request -> app -> registry (which model) -> batches (one worker a model) -> model.best -> answer
             \\-> events (journal, fsync) -> live histories ----^
"""
