// sharp in its fastest use: one decode to the largest rendition, the others scaled from its pixels; one thread.
// node compare.mjs FILE avatars|photos TIMES → CPU milliseconds per picture, and the process's peak memory in KiB;
// node compare.mjs FILE avatars|photos seen PREFIX writes the renditions, at quality 100, to PREFIX and the side.
import sharp from "sharp";
import { readFileSync, writeFileSync } from "node:fs";

sharp.concurrency(1);
sharp.cache(false);
const [file, what, times, prefix] = process.argv.slice(2);
const input = readFileSync(file);
const quality = times === "seen" ? 100 : 80;

async function once() {
  const avatars = what === "avatars";
  const [first, ...rest] = avatars ? [512, 256, 128, 64] : [2048, 1080, 320];
  const sized = (image, side) => image.resize(side, side, { fit: avatars ? "cover" : "inside", withoutEnlargement: true });
  const { data, info } = await sized(sharp(input).rotate().toColourspace("srgb"), first)
    .flatten({ background: "#fff" }).raw().toBuffer({ resolveWithObject: true });
  const raw = { raw: { width: info.width, height: info.height, channels: info.channels } };
  const outputs = [await sharp(data, raw).jpeg({ quality }).toBuffer()];
  let [pixels, size] = [data, raw];
  for (const side of rest) {
    const made = await sized(sharp(pixels, size), side).raw().toBuffer({ resolveWithObject: true });
    pixels = made.data;
    size = { raw: { width: made.info.width, height: made.info.height, channels: made.info.channels } };
    outputs.push(await sharp(pixels, size).jpeg({ quality }).toBuffer());
  }
  return outputs;
}

if (times === "seen") {
  const sides = what === "avatars" ? [512, 256, 128, 64] : [2048, 1080, 320];
  (await once()).forEach((output, n) => writeFileSync(`${prefix}${sides[n]}.jpg`, output));
  process.exit();
}
await once();
const before = process.cpuUsage();
for (let i = 0; i < Number(times); i++) await once();
const used = process.cpuUsage(before);
console.log((used.user + used.system) / 1000 / Number(times), process.resourceUsage().maxRSS);
