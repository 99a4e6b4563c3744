"""Training networks for unreliable memory: weights and each layer's error rate learned together. Needs the extra `train` (PyTorch).

Nothing here is imported by `import accelsim`. `recipe` and `data` read what is asked, without PyTorch; `run` trains; `export` writes the
network and its memory profile.
"""
