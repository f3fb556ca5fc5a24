"""Results as annotation files: COCO, YOLO, CSV and JSON lines. Pure functions, values in and text out."""
