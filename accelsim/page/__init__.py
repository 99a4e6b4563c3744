"""Run folders as pages of HTML: one file that needs no network, to read, print and send."""
