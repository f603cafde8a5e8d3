"""What decoding holds of the memory, in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def test_memory_follows_the_limit_of_pixels() -> None:
    """In a process of its own: the most that was ever held, for images just within the limit."""
    code = """
import io, resource, numpy as np
from PIL import Image
from yolo_backend.images.decode import decode_image
side = 4400
def encode(image, name, **options):
    file = io.BytesIO(); image.save(file, name, **options); return file.getvalue()
files = [encode(Image.fromarray(np.zeros((side, side), kind)), "TIFF") for kind in ("uint8", "uint16", "int32", "float32")]
files += [encode(Image.new("RGBA", (side, side)), name) for name in ("PNG", "TIFF")]
files += [encode(Image.new("RGB", (side, side)), "JPEG", exif=b"Exif\\0\\0II*\\0\\x08\\0\\0\\0\\1\\0\\x12\\1\\3\\0\\1\\0\\0\\0\\6\\0\\0\\0" + bytes(4))]
at_rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files += [encode(Image.new("RGB", (side, side)), "AVIF", speed=10)]
for file in files:
    decode_image(file, 20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_rest) * 1024)
"""  # noqa: E501
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 20_000_000 * 16
