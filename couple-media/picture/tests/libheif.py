"""Writes HEIC files with libheif and x265, and for each a PNG of libheif's own decoding: libheif.py FOLDER."""

import io
import sys
from pathlib import Path

import pillow_heif
from PIL import Image, ImageDraw

pillow_heif.register_heif_opener()
folder = Path(sys.argv[1])


def picture(width, height):
    def channel(seed):
        coarse = Image.radial_gradient("L").resize((9 + seed, 7 + seed)).rotate(37 * seed)
        return coarse.resize((width, height), Image.Resampling.BICUBIC)

    made = Image.merge("RGB", [channel(seed) for seed in (1, 2, 3)])
    draw = ImageDraw.Draw(made)
    draw.rectangle((width // 10, height // 10, width // 4, height // 3), fill=(220, 30, 30))
    draw.ellipse((width // 2, height // 2, width * 9 // 10, height * 4 // 5), fill=(40, 60, 220))
    return made


def keep(name, made, **options):
    file = io.BytesIO()
    made.save(file, format="HEIF", **options)
    (folder / f"{name}.heic").write_bytes(file.getvalue())
    seen = Image.open(io.BytesIO(file.getvalue()))
    if seen.mode == "RGBA":
        seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    seen.convert("RGB").save(folder / f"{name}.png")


for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Mkr"
    keep(f"turned-{orientation}", picture(200, 120), quality=90, exif=exif.tobytes())
    if orientation in (1, 6):
        keep(f"tiles-{orientation}", picture(600, 401), quality=80, tile_size=256, exif=exif.tobytes())
keep("odd", picture(333, 251), quality=80)
keep("tiny", picture(17, 9), quality=90)
keep("grey", picture(300, 200).convert("L"), quality=80)
for chroma in (420, 422, 444):
    keep(f"chroma-{chroma}", picture(300, 200), quality=80, chroma=chroma)
for matrix in (0, 1, 9):
    keep(f"matrix-{matrix}", picture(300, 200), quality=90, chroma=444, matrix_coefficients=matrix)
keep("limited", picture(300, 200), quality=80, full_range_flag=0)
keep("lossless", picture(300, 200), quality=-1)
clear = picture(300, 200)
clear.putalpha(Image.linear_gradient("L").resize((300, 200)))
keep("alpha", clear, quality=90)
wide = picture(320, 240).tobytes()
deep = pillow_heif.from_bytes("RGB;16", (320, 240), bytes(byte for value in wide for byte in (value, value)))
file = io.BytesIO()
deep.save(file, quality=80)
(folder / "ten-bits.heic").write_bytes(file.getvalue())
Image.open(file).convert("RGB").save(folder / "ten-bits.png")
