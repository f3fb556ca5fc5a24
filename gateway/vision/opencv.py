"""OpenCV as the worker wants it. It reads these variables once, when it is imported: nothing else imports `cv2`."""

import os

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))  # a second belt behind `images.probe`
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # the client learns what is wrong with an image

import cv2 as cv2

cv2.setNumThreads(1)  # the processes are the parallelism
