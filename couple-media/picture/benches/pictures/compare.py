"""Pillow in a forked process per picture: the cost of a process, its start included.

compare.py make FOLDER        makes the pictures
compare.py FILE avatars|photos
"""

import io
import resource
import sys

from PIL import Image, ImageCms, ImageOps


def make(folder):
    # Twelve megapixels with the spectrum of a photo (1/f, as eleven octaves of noise, mostly shared by the channels) and
    # the grain of a sensor; about 4 MB as a JPEG of quality 92, as a phone writes it.
    import numpy

    width, height = 4032, 3024
    random = numpy.random.default_rng(1)
    pixels = numpy.full((height, width, 3), 128, numpy.float32)
    for octave in range(1, 12):
        cells = 2**octave
        noise = random.standard_normal((height * cells // 4096 + 2, width * cells // 4096 + 2, 3)).astype(numpy.float32)
        layer = numpy.stack(
            [numpy.asarray(Image.fromarray(noise[..., c]).resize((width, height), Image.BICUBIC)) for c in range(3)], -1
        )
        pixels += (layer[..., :1] * 0.85 + layer * 0.15) * (160 / cells**0.75)
    pixels += random.standard_normal((height, width, 1)).astype(numpy.float32) * 6
    pixels += random.standard_normal((height, width, 3)).astype(numpy.float32) * 2
    photo = Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))
    photo.save(f"{folder}/phone.jpg", quality=92, subsampling="4:2:0")
    photo.save(f"{folder}/progressive.jpg", quality=92, subsampling="4:2:0", progressive=True)
    with open(f"{folder}/p3.icc", "rb") as profile:
        photo.save(f"{folder}/p3.jpg", quality=92, subsampling="4:2:0", icc_profile=profile.read())
    # Two bits less of grain keep it below the upload limit of 20 MiB.
    photo.point(lambda value: value & 0xFC).save(f"{folder}/photo.png", compress_level=6)
    photo.resize((1632, 1224), Image.LANCZOS).save(f"{folder}/photo.webp", quality=85)
    # In tiles, as iPhones write it.
    photo.save(f"{folder}/phone.heic", quality=60, tile_size=512)
    y, x = numpy.mgrid[0:height, 0:width].astype(numpy.float64)
    radius = (x - width / 2) ** 2 + (y - height / 2) ** 2
    plate = 128 + 100 * numpy.cos(numpy.pi * radius / height)
    plate = Image.fromarray(plate.astype(numpy.uint8)).convert("RGB")
    plate.save(f"{folder}/plate.jpg", quality=95)
    plate.save(f"{folder}/plate.png")


def main():
    if sys.argv[1] == "make" or sys.argv[1].endswith(".heic"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    if sys.argv[1] == "make":
        return make(sys.argv[2])
    avatars = sys.argv[2] == "avatars"
    image = ImageOps.exif_transpose(Image.open(sys.argv[1]))
    profile = image.info.get("icc_profile")
    if profile:
        image = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    image = image.convert("RGB")
    for side in [512, 256, 128, 64] if avatars else [2048, 1080, 320]:
        fit = ImageOps.fit if avatars else ImageOps.contain
        fit(image, (side, side), Image.LANCZOS).save(io.BytesIO(), "JPEG", quality=80)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print((used.ru_utime + used.ru_stime) * 1000, used.ru_maxrss)


main()
