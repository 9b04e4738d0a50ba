from maskrd.cli import main

main()
