/** Decoder of ThumbHash, the placeholder of a picture in about 25 bytes: https://evanw.github.io/thumbhash/ */

/** @type {Map<string, string>} */
const made = new Map();

/**
 * @param {string} base64
 * @returns {string} address of a small blurred image
 */
export function thumbHashImage(base64) {
  const known = made.get(base64);
  if (known) return known;
  const { width, height, pixels } = decode(Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d")?.putImageData(new ImageData(pixels, width, height), 0, 0);
  const address = canvas.toDataURL();
  made.set(base64, address);
  return address;
}

/**
 * A hash has a header with the average colour and the scale of each channel, then 4-bit coefficients of a discrete cosine transform of
 * lightness (l), yellow–blue (p), red–green (q) and, if the picture has transparent parts, alpha (a).
 * @param {Uint8Array} hash
 */
function decode(hash) {
  const first = hash[0] | (hash[1] << 8) | (hash[2] << 16);
  const second = hash[3] | (hash[4] << 8);
  const hasAlpha = first >> 23 === 1;
  const isWide = second >> 15 === 1;
  const average = {
    l: (first & 63) / 63,
    p: ((first >> 6) & 63) / 31.5 - 1,
    q: ((first >> 12) & 63) / 31.5 - 1,
    a: hasAlpha ? (hash[5] & 15) / 15 : 1,
  };
  const scale = {
    l: ((first >> 18) & 31) / 31,
    p: ((second >> 3) & 63) / 63,
    q: ((second >> 9) & 63) / 63,
    a: hasAlpha ? (hash[5] >> 4) / 15 : 0,
  };
  const most = hasAlpha ? 5 : 7;
  const columns = Math.max(3, isWide ? most : second & 7);
  const rows = Math.max(3, isWide ? second & 7 : most);

  let at = (hasAlpha ? 6 : 5) * 2;
  const nibble = () => {
    const value = (hash[at >> 1] >> ((at & 1) * 4)) & 15;
    at += 1;
    return value / 7.5 - 1;
  };
  /** Coefficients of a channel in a triangle of nx by ny, without the average. */
  const channel = (/** @type {number} */ nx, /** @type {number} */ ny, /** @type {number} */ factor) => {
    const terms = [];
    for (let y = 0; y < ny; y++) {
      for (let x = y === 0 ? 1 : 0; x * ny < nx * (ny - y); x++) terms.push({ x, y, value: nibble() * factor });
    }
    return terms;
  };
  // Colours are stored somewhat paler than they are.
  const channels = {
    l: channel(columns, rows, scale.l),
    p: channel(3, 3, scale.p * 1.25),
    q: channel(3, 3, scale.q * 1.25),
    a: hasAlpha ? channel(5, 5, scale.a) : [],
  };

  const ratio = columns / rows;
  const width = Math.round(ratio > 1 ? 32 : 32 * ratio);
  const height = Math.round(ratio > 1 ? 32 / ratio : 32);
  const pixels = new Uint8ClampedArray(width * height * 4);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const value = (/** @type {"l" | "p" | "q" | "a"} */ name) =>
        channels[name].reduce(
          (sum, { x, y, value }) =>
            sum + value * 2 * Math.cos((Math.PI * x * (column + 0.5)) / width) * Math.cos((Math.PI * y * (row + 0.5)) / height),
          average[name],
        );
      const [l, p, q, a] = [value("l"), value("p"), value("q"), value("a")];
      const blue = l - (2 / 3) * p;
      const red = (3 * l - blue + q) / 2;
      pixels.set([red * 255, (red - q) * 255, blue * 255, a * 255], (row * width + column) * 4);
    }
  }
  return { width, height, pixels };
}
