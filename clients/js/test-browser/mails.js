/**
 * Renders the built-in mails as a phone of 360 px shows them, light and dark, and takes the picture of the documentation:
 *
 *     cargo run --example mails -- FOLDER
 *     node clients/js/test-browser/mails.js FOLDER docs/mails.webp [ALL.png]
 *
 * Fails if a mail is wider than the phone, asks for something from the network, or has text with too little contrast. ALL.png shows every mail.
 *
 * COUPLE_TEST_CLIENTS is the folder of tests/clients/install. The system needs fonts for Arabic, Japanese and Korean, for example Debian's
 * fonts-noto-core and fonts-noto-cjk.
 */

import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { axeSource, launch, toWebp } from "./support.js";

const WIDTH = 360;
const QUALITY = 0.7;
/** Mails in the picture of the documentation. */
const SHOWN = ["en.confirm_sign_up", "de.invitation", "ja.sign_in_code", "ar.confirm_email", "fr.new_device", "ko.set_password", "pt-BR.email_change_asked", "es.deletion_scheduled"];

const [folder, file, all] = process.argv.slice(2);
if (!folder || !file) throw new Error("usage: node clients/js/test-browser/mails.js FOLDER FILE.webp [ALL.png]");

/**
 * HTML part of a mail.
 * @param {string} mail with parts in quoted-printable, base64 or 7bit
 */
function htmlOf(mail) {
  const boundary = /boundary="([^"]+)"/.exec(mail)?.[1];
  const part = mail.split(`--${boundary}`).find((part) => /^Content-Type: text\/html/im.test(part));
  if (!boundary || !part) throw new Error("a mail has no HTML");
  const [, head, body] = /^\s*([^]*?)\r\n\r\n([^]*)$/.exec(part) ?? [];
  if (/base64/i.test(head)) return Buffer.from(body, "base64").toString();
  if (!/quoted-printable/i.test(head)) return body;
  const bytes = body.replace(/=\r\n/g, "").replace(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString();
}

/**
 * Pictures in columns, each light above dark.
 * @param {any} page
 * @param {{ light: Buffer, dark: Buffer }[]} mails
 * @param {{ columns: number, width: number }} layout width of a column in pixels
 */
async function sheet(page, mails, { columns, width }) {
  const image = (/** @type {Buffer} */ png) => `<img width=${width} src="data:image/png;base64,${png.toString("base64")}">`;
  const cells = mails.map(({ light, dark }) => `<div>${image(light)}${image(dark)}</div>`);
  await page.setViewportSize({ width: columns * (width + 8) + 8, height: 600 });
  await page.setContent(
    `<style>body{margin:8px;display:grid;grid-template-columns:repeat(${columns},${width}px);gap:8px;background:#888}img{display:block;margin-bottom:8px}</style>${cells.join("")}`,
  );
  return page.screenshot({ fullPage: true });
}

const browser = await launch();
const problems = [];
try {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".eml")).sort();
  /** @type {Map<string, { light: Buffer, dark: Buffer }>} */
  const pictures = new Map();
  for (const name of names) {
    const mail = name.slice(0, -".eml".length);
    const html = htmlOf(await readFile(join(folder, name), "utf8"));
    /** @type {Record<string, Buffer>} */
    const taken = {};
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ viewport: { width: WIDTH, height: 300 }, colorScheme, deviceScaleFactor: 1 });
      const page = await context.newPage();
      page.on("request", (/** @type {any} */ request) => problems.push(`${mail}: requests ${request.url()}`));
      await page.setContent(html);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      if (wide > WIDTH) problems.push(`${mail}, ${colorScheme}: ${wide} px wide`);
      taken[colorScheme] = await page.screenshot({ fullPage: true });
      await page.addScriptTag({ content: axeSource });
      const { violations } = await page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa'] })");
      for (const { id, nodes } of violations) problems.push(`${mail}, ${colorScheme}: ${id}: ${nodes[0].html}`);
      await context.close();
    }
    pictures.set(mail, { light: taken.light, dark: taken.dark });
  }
  const page = await browser.newPage();
  const shown = SHOWN.map((mail) => pictures.get(mail)).filter((taken) => taken !== undefined);
  if (shown.length !== SHOWN.length) problems.push("mails of the picture are missing");
  const webp = await toWebp(page, await sheet(page, shown, { columns: SHOWN.length, width: 180 }), QUALITY);
  await writeFile(file, webp);
  console.log(`${file}: ${webp.length} bytes; ${names.length} mails, light and dark`);
  if (all) await writeFile(all, await sheet(page, [...pictures.values()], { columns: 15, width: 240 }));
} finally {
  await browser.close();
}
if (problems.length > 0) throw new Error(problems.join("\n"));
