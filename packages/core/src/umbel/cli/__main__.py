from umbel.cli import main

main()
