"""`python -m mockingjay` is the `mockingjay` command; torchrun wants it so."""

from mockingjay.cli.main import main

main()
