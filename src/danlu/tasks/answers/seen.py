"""What tasks share that are told something of a picture: how large it is read, and how it is seen anew in training."""

from danlu.modalities.image import Image
from danlu.tasks.task import Task


class Seen(Task):
    """Reads pictures: pixel_values uint8 (N, C, S, S) in columns."""

    inputs = {"image": Image}
    long = "drop"
    judges = True
    encoded_by = ("size",)
    options = {
        "size": (0, [0, 1024], "pixels on each side; 0: as the pictures are, at most 96"),
        "crop": (0, [0, 512], "pixels by which pictures are moved at most in training, each time others"),
        "flip": (False, None, "turn left and right in training, half of the time"),
    }
