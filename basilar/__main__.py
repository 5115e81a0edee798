"""`python -m basilar`: the command."""

from basilar.pipeline.cli import main

main()
