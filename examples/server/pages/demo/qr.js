/** QR codes (ISO/IEC 18004) of short texts: byte mode, error correction level M, versions 1 to 6, which need no version information. */

/** By version: error correction codewords of each block, blocks, data codewords in all. */
const VERSIONS = [
  [10, 1, 16],
  [16, 1, 28],
  [26, 1, 44],
  [18, 2, 64],
  [24, 2, 86],
  [16, 4, 108],
];
/** Format information of level M with mask 0. Scanners read every mask, so none is chosen by its looks. */
const FORMAT = 0x5412;
/** Light modules around the code. */
const QUIET = 4;

/**
 * @param {string} text at most 106 bytes
 * @param {string} label
 * @returns {SVGElement | string} the code; empty if the text is too long
 */
export function qrCode(text, label) {
  const bytes = new TextEncoder().encode(text);
  const version = VERSIONS.findIndex(([, , data]) => bytes.length + 2 <= data) + 1;
  if (version === 0) return "";
  const modules = place(codewords(bytes, version), version);
  const size = modules.length + 2 * QUIET;
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  for (const [name, value] of Object.entries({
    viewBox: `0 0 ${size} ${size}`,
    role: "img",
    "aria-label": label,
    "shape-rendering": "crispEdges",
  }))
    svg.setAttribute(name, value);
  const path = document.createElementNS(namespace, "path");
  const dark = modules.flatMap((row, y) => row.map((isDark, x) => (isDark ? `M${x + QUIET} ${y + QUIET}h1v1h-1z` : "")));
  path.setAttribute("d", dark.join(""));
  svg.append(path);
  return svg;
}

/**
 * Data and error correction, interleaved by block.
 * @param {Uint8Array} bytes
 * @param {number} version
 */
function codewords(bytes, version) {
  const [correction, blocks, capacity] = VERSIONS[version - 1];
  // Mode 4 (bytes) and the length of 8 bits shift everything by half a byte.
  const nibbles = [4, bytes.length >> 4, bytes.length & 15, ...[...bytes].flatMap((byte) => [byte >> 4, byte & 15]), 0];
  const data = Array.from({ length: nibbles.length / 2 }, (_, at) => (nibbles[2 * at] << 4) | nibbles[2 * at + 1]);
  for (let padding = 0xec; data.length < capacity; padding ^= 0xec ^ 0x11) data.push(padding);
  const size = capacity / blocks;
  const parts = Array.from({ length: blocks }, (_, block) => data.slice(block * size, (block + 1) * size));
  const checks = parts.map((part) => remainder(part, correction));
  const interleave = (/** @type {number[][]} */ lists) => lists[0].flatMap((_, at) => lists.map((list) => list[at]));
  return [...interleave(parts), ...interleave(checks)];
}

/**
 * Product in the field of 256 elements with the polynomial 0x11d.
 * @param {number} one
 * @param {number} other
 */
function multiply(one, other) {
  let product = 0;
  for (let bit = 7; bit >= 0; bit--) product = (product << 1) ^ ((product >> 7) * 0x11d) ^ (((other >> bit) & 1) * one);
  return product;
}

/**
 * Reed–Solomon error correction of a block.
 * @param {number[]} data
 * @param {number} degree
 */
function remainder(data, degree) {
  let generator = [1];
  for (let root = 1, at = 0; at < degree; at++, root = multiply(root, 2)) {
    const shifted = [...generator, 0];
    generator = shifted.map((value, place) => value ^ (place > 0 ? multiply(generator[place - 1], root) : 0));
  }
  const rest = new Array(degree).fill(0);
  for (const byte of data) {
    const factor = byte ^ rest[0];
    rest.shift();
    rest.push(0);
    for (let at = 0; at < degree; at++) rest[at] ^= multiply(generator[at + 1], factor);
  }
  return rest;
}

/**
 * @param {number[]} words
 * @param {number} version
 * @returns {boolean[][]} rows of modules, dark ones are true
 */
function place(words, version) {
  const size = 17 + 4 * version;
  /** @type {(boolean | undefined)[][]} */
  const rows = Array.from({ length: size }, () => new Array(size));
  const set = (/** @type {number} */ x, /** @type {number} */ y, /** @type {boolean} */ isDark) => {
    if (rows[y] && x >= 0 && x < size) rows[y][x] = isDark;
  };
  const square = (
    /** @type {number} */ centerX,
    /** @type {number} */ centerY,
    /** @type {number} */ radius,
    /** @type {number[]} */ lightRings,
  ) => {
    for (let y = -radius; y <= radius; y++) {
      for (let x = -radius; x <= radius; x++) set(centerX + x, centerY + y, !lightRings.includes(Math.max(Math.abs(x), Math.abs(y))));
    }
  };
  for (let at = 0; at < size; at++) {
    set(6, at, at % 2 === 0);
    set(at, 6, at % 2 === 0);
  }
  for (const [x, y] of [
    [3, 3],
    [size - 4, 3],
    [3, size - 4],
  ])
    square(x, y, 4, [2, 4]);
  if (version > 1) square(size - 7, size - 7, 2, [1]);
  for (let bit = 0; bit < 15; bit++) {
    const isDark = ((FORMAT >> bit) & 1) === 1;
    const along = bit < 6 ? bit : bit < 8 ? bit + 1 : 0;
    if (bit < 8) set(8, along, isDark);
    else set(bit === 8 ? 7 : 14 - bit, 8, isDark);
    if (bit < 8) set(size - 1 - bit, 8, isDark);
    else set(8, size - 15 + bit, isDark);
  }
  set(8, size - 8, true);

  // In columns of two modules from the right, alternately upwards and downwards.
  let bit = 0;
  for (let right = size - 1; right > 0; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < size; step++) {
      const y = ((right + 1) & 2) === 0 ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (rows[y][x] !== undefined) continue;
        const isSet = (((words[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) === 1;
        rows[y][x] = isSet !== ((x + y) % 2 === 0);
        bit += 1;
      }
    }
  }
  return /** @type {boolean[][]} */ (rows);
}
