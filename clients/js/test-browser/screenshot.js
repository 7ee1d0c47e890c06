/**
 * Takes the picture of the demo in the README: node clients/js/test-browser/screenshot.js docs/demo.webp
 *
 * COUPLE_TEST_CLIENTS is the folder of tests/clients/install, COUPLE_TEST_SERVER the path of the server example. The system needs a font with
 * emoji, for example Debian's fonts-noto-color-emoji.
 */

import { writeFile } from "node:fs/promises";

import { Server } from "../test/support/server.js";
import { Demo, launch, pair, toWebp } from "./support.js";

const QUALITY = 0.8;

const [file] = process.argv.slice(2);
if (!file) throw new Error("usage: node clients/js/test-browser/screenshot.js FILE.webp");
const server = await Server.start();
const browser = await launch();
try {
  const demo = await Demo.open(browser, server.url, { width: 1240, height: 760 });
  const { page } = demo;
  const [ana, ben] = [demo.phone(1), demo.phone(2)];
  await ana.signUp();
  await ben.signUp();
  await pair(ana, ben);
  await ana.write("Good morning! Did you see the lake today?");
  await ben.bubble("Good morning!").waitFor();
  await ben.element.locator(".composer input[type=file]").setInputFiles({ name: "lake.png", mimeType: "image/png", buffer: await lake(page) });
  await ana.button(/Photo, full view/).waitFor();
  await ben.button(/Photo, full view/).waitFor();
  await ben.write("Shall we go there after lunch? I can bring the bicycles.");
  await ana.openMenu(/Actions for: Shall we go/);
  await ana.button("React with ❤️").click();
  await ben.element.getByRole("img", { name: "Ana: ❤️" }).waitFor();
  await ben.element.locator(".meta .state", { hasText: "Read" }).last().waitFor();
  await ana.button("Go offline").click();
  await ana.write("Yes! I am in the train, the network comes and goes");
  await ana.write("See you at two 🚲");
  await ana.status("2 to send");
  await ben.message().fill("Sure");
  await ben.message().blur();
  await page.mouse.move(0, 0);
  // Notices end, pictures are complete.
  await page.waitForTimeout(9_000);
  const webp = await toWebp(page, await page.screenshot(), QUALITY);
  await writeFile(file, webp);
  console.log(`${file}: ${webp.length} bytes`);
  await demo.close();
} finally {
  await browser.close();
  await server.stop();
}

/**
 * A photo of a lake, as a PNG.
 * @param {any} page in whose browser it is drawn
 */
async function lake(page) {
  const base64 = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 1200, height: 900 });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const fill = (/** @type {number} */ top, /** @type {number} */ bottom, /** @type {string} */ from, /** @type {string} */ to) => {
      const gradient = context.createLinearGradient(0, top, 0, bottom);
      gradient.addColorStop(0, from);
      gradient.addColorStop(1, to);
      context.fillStyle = gradient;
    };
    fill(0, 480, "#6f9fd8", "#cfe3e6");
    context.fillRect(0, 0, 1200, 480);
    fill(330, 480, "#33474f", "#3f5f4a");
    context.beginPath();
    context.moveTo(0, 480);
    for (let x = 0; x <= 1200; x++) context.lineTo(x, 440 - 105 * Math.abs(Math.sin(x / 130)) - 12 * Math.sin(x / 31));
    context.lineTo(1200, 480);
    context.fill();
    fill(460, 900, "#2d5f8c", "#1c58c8");
    context.fillRect(0, 460, 1200, 440);
    context.strokeStyle = "rgb(255 255 255 / 12%)";
    for (let y = 480; y < 900; y += 14) {
      context.beginPath();
      for (let x = 0; x <= 1200; x += 6) context.lineTo(x, y + 3 * Math.sin(x / 40 + y));
      context.stroke();
    }
    return canvas.toDataURL("image/png").split(",")[1];
  });
  return Buffer.from(base64, "base64");
}
