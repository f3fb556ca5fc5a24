"""The command line `yolo-gateway`; needs the extra `cli`."""
