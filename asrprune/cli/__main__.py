"""`python -m asrprune.cli`."""

from asrprune.cli import main

main()
