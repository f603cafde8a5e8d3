"""`yolo-backend`: the commands around the server. Each is thin: it reads options, and tells what came out."""
