"""`python -m yolo_backend COMMAND`: all that is done around the server."""

from yolo_backend.cli.app import main

if __name__ == "__main__":
    main()
