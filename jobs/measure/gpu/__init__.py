"""`resca benchmark gpu`: seconds of dense and sparse steps at full size, with random weights.

Nothing here imports Ray, and nothing but the peers needs more than torch, diffusers and what reads the command line.
"""
