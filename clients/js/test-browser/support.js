/** Chromium on the demo of the server example: driver, accessibility, pictures. */

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const packages = process.env.COUPLE_TEST_CLIENTS;
if (!packages) throw new Error("COUPLE_TEST_CLIENTS is not set: the folder of tests/clients/install");
const load = createRequire(join(packages, "package.json"));
const { chromium } = load("playwright-core");
const jsQR = load("jsqr");
export const axeSource = await readFile(load.resolve("axe-core/axe.min.js"), "utf8");

/**
 * Messages of a browser about the network that the demo expects: 404 as long as there is no couple, 401 after the end of a session, a
 * wrong code, and connections that a test cut.
 */
const EXPECTED =
  /^Failed to load resource: (the server responded with a status of (401|404|422) |net::ERR_)|^WebSocket connection to '[^']*' failed: /;

export function launch() {
  return chromium.launch({
    executablePath: process.env.COUPLE_TEST_CHROMIUM || "/usr/bin/chromium",
    // Containers and root lack what the sandbox needs; the browser loads pages of our own server only.
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
    ],
  });
}

/** The demo in a browser profile of its own, with what it reports. */
export class Demo {
  /** @type {string[]} errors and warnings of the console, and dialogs */
  problems = [];

  /**
   * @param {any} context
   * @param {any} page
   */
  constructor(context, page) {
    this.context = context;
    this.page = page;
  }

  /**
   * @param {any} browser
   * @param {string} url
   * @param {{ width?: number, height?: number, scheme?: "light" | "dark", path?: string }} [options]
   */
  static async open(browser, url, { width = 1280, height = 800, scheme = "light", path = "/demo/" } = {}) {
    const context = await browser.newContext({
      viewport: { width, height },
      colorScheme: scheme,
      permissions: ["clipboard-read", "clipboard-write"],
    });
    context.setDefaultTimeout(20_000);
    const demo = new Demo(context, null);
    demo.page = await demo.openTab(url + path);
    return demo;
  }

  /** @param {string} url */
  async openTab(url) {
    const page = await this.context.newPage();
    page.on("console", (/** @type {any} */ message) => {
      if (["error", "warning"].includes(message.type()) && !EXPECTED.test(message.text())) this.problems.push(message.text());
    });
    page.on("pageerror", (/** @type {Error} */ error) => this.problems.push(error.stack || String(error)));
    page.on("dialog", (/** @type {any} */ dialog) => {
      this.problems.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    await page.goto(url);
    return page;
  }

  /** @param {number} number */
  phone(number, page = this.page) {
    return new PhoneDriver(page, number);
  }

  async close() {
    await this.context.close();
    assert.deepEqual(this.problems, []);
  }
}

/** What a user does with one phone. */
export class PhoneDriver {
  /**
   * @param {any} page
   * @param {number} number
   */
  constructor(page, number) {
    this.page = page;
    this.number = number;
    this.element = page.locator(`.station[data-phone="${number}"]`);
  }

  /** @param {string | RegExp} name */
  button(name, exact = typeof name === "string") {
    return this.element.getByRole("button", { name, exact });
  }

  /** @param {string} label */
  field(label) {
    return this.element.getByLabel(label, { exact: true });
  }

  /** On a narrow page. */
  async choose() {
    const pick = this.page.locator("#picker button").nth(this.number - 1);
    if (await pick.isVisible()) await pick.click();
  }

  /** @param {{ name?: string, email?: string, password?: string }} [user] */
  async signUp({ name, email, password } = {}) {
    if (name !== undefined) await this.field("Your name").fill(name);
    if (email !== undefined) await this.field("E-mail address").fill(email);
    const address = await this.field("E-mail address").inputValue();
    await this.button("Create account").click();
    if (password) await this.field("Password (optional)").fill(password);
    await this.button("Use code").click();
    await this.element.getByRole("heading", { name: "Find each other" }).waitFor();
    return address;
  }

  /** @param {string} email */
  async signInByCode(email) {
    const link = this.button("I have an account");
    await link.or(this.button("Sign in")).waitFor();
    if (await link.isVisible()) await link.click();
    await this.field("E-mail address").fill(email);
    await this.button("Sign in").click();
    await this.button("Use code").click();
    await this.button("Use code").waitFor({ state: "hidden" });
  }

  message() {
    return this.field("Message");
  }

  /** @param {string} text */
  async write(text) {
    await this.message().fill(text);
    await this.message().press("Enter");
  }

  /** @param {string} text */
  bubble(text) {
    return this.element.locator(".bubble", { hasText: text });
  }

  /** Texts of the log, in order. */
  texts() {
    return this.element.locator(".messages .bubble p").allTextContents();
  }

  /** @param {RegExp} about */
  async openMenu(about) {
    const menu = this.element.getByRole("button", { name: about });
    await menu.focus();
    await menu.press("Enter");
  }

  async openSettings() {
    await this.button("Settings").click();
    await this.element.getByText("This phone").waitFor();
  }

  async closeSheet() {
    await this.element.getByRole("button", { name: "Close", exact: true }).last().click();
  }

  /** @param {string} text */
  async status(text) {
    await this.element.locator(".controls .status", { hasText: text }).waitFor();
  }
}

/**
 * @param {PhoneDriver} one
 * @param {PhoneDriver} other
 */
export async function pair(one, other) {
  await one.choose();
  await one.button("Invite").click();
  await one.element.locator(".invite-code").waitFor();
  await other.choose();
  await other.button("Scan it").click();
  await other.button("Accept").click();
  await other.message().waitFor();
  await one.choose();
  await one.message().waitFor();
}

/**
 * Text of a QR code.
 * @param {any} svg
 * @returns {Promise<string | undefined>}
 */
export async function readQrCode(svg) {
  const { pixels, size } = await svg.evaluate((/** @type {SVGSVGElement} */ svg) => {
    const size = svg.viewBox.baseVal.width * 4;
    const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = "white";
    context.fillRect(0, 0, size, size);
    context.scale(4, 4);
    context.fillStyle = "black";
    context.fill(new Path2D(svg.querySelector("path")?.getAttribute("d") ?? ""));
    return { pixels: [...context.getImageData(0, 0, size, size).data], size };
  });
  return jsQR(Uint8ClampedArray.from(pixels), size, size)?.data;
}

/**
 * @param {any} page
 * @param {string} state
 */
export async function checkAccessibility(page, state) {
  // Colours of elements that still fade in are not those that a user sees.
  await page.waitForTimeout(350);
  await page.evaluate(axeSource);
  // axe sends messages to frames, which a sandboxed frame refuses: mails are checked by mails.js.
  const { violations } = await page.evaluate("axe.run(document, { iframes: false, resultTypes: ['violations'] })");
  const found = violations.map(
    (/** @type {any} */ { id, help, nodes }) =>
      `${id}: ${help}: ${nodes.map((/** @type {any} */ node) => node.target.join(" ")).join(", ")}`,
  );
  assert.deepEqual(found, [], `accessibility of ${state}`);
  const folder = process.env.COUPLE_TEST_SCREENSHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${state}.png`) });
}

/**
 * English texts of a page whose last punctuation mark is painted before them, as from right to left.
 * @param {any} page
 * @returns {Promise<string[]>}
 */
export function misplacedPunctuation(page) {
  return page.evaluate(() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
      const node = /** @type {Text} */ (texts.currentNode);
      const text = node.data.trimEnd();
      if (!/^[ -~“”’…·–]*[a-z][.?!:…]$/i.test(text)) continue;
      const [letter, mark] = [2, 1].map((fromEnd) => {
        const range = document.createRange();
        range.setStart(node, text.length - fromEnd);
        range.setEnd(node, text.length - fromEnd + 1);
        return range.getBoundingClientRect();
      });
      if (mark.width > 0 && mark.left < letter.left) found.push(text);
    }
    return found;
  });
}

/**
 * Milliseconds from the navigation to the demo until the sign-up forms of both phones are painted and react to a click.
 * @param {any} page
 * @param {string} url of the server
 * @returns {Promise<number>}
 */
export async function loadTime(page, url) {
  const script = await page.addInitScript(() => {
    const buttons = (/** @type {string} */ text) =>
      [.../** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll(".sign-in button:enabled"))].filter(
        ({ textContent }) => textContent === text,
      );
    const observer = new MutationObserver(() => {
      if (buttons("Create account").length < 2) return;
      observer.disconnect();
      // After the paint.
      requestAnimationFrame(() =>
        setTimeout(() => {
          for (const button of buttons("I have an account")) button.click();
          if (buttons("I am new here").length === 2) performance.mark("interactive");
        }),
      );
    });
    observer.observe(document, { childList: true, subtree: true });
  });
  await page.goto(`${url}/demo/`);
  const mark = await page.waitForFunction(() => performance.getEntriesByName("interactive")[0]?.startTime);
  await script.dispose();
  return mark.jsonValue();
}

/**
 * @param {() => Promise<boolean>} condition
 * @param {string} what
 */
export async function until(condition, what) {
  for (const end = Date.now() + 30_000; !(await condition());) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * A PNG with noise, so that it cannot be compressed.
 * @param {any} page in whose browser it is made
 * @param {number} width
 * @param {number} height
 * @param {boolean} [noise] `false`: a gradient, which is small
 */
export async function picture(page, width, height, noise = true) {
  const base64 = await page.evaluate(
    async (/** @type {[number, number, boolean]} */ [width, height, noise]) => {
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      const gradient = context.createLinearGradient(0, 0, width, height);
      gradient.addColorStop(0, "skyblue");
      gradient.addColorStop(1, "darkgreen");
      context.fillStyle = gradient;
      context.fillRect(0, 0, width, height);
      if (noise) {
        const data = context.createImageData(width, height);
        for (let at = 0; at < data.data.length; at += 65_536) crypto.getRandomValues(data.data.subarray(at, at + 65_536));
        for (let at = 3; at < data.data.length; at += 4) data.data[at] = 255;
        context.putImageData(data, 0, 0);
      }
      return canvas.toDataURL("image/png").split(",")[1];
    },
    [width, height, noise],
  );
  return Buffer.from(base64, "base64");
}

/**
 * WebP of a PNG.
 * @param {any} page in whose browser it is encoded
 * @param {Buffer} png
 * @param {number} quality from 0 to 1
 */
export async function toWebp(page, png, quality) {
  const base64 = await page.evaluate(
    async (/** @type {[string, number]} */ [png, quality]) => {
      const image = new Image();
      image.src = `data:image/png;base64,${png}`;
      await image.decode();
      const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
      canvas.getContext("2d")?.drawImage(image, 0, 0);
      return canvas.toDataURL("image/webp", quality).split(",")[1];
    },
    [png.toString("base64"), quality],
  );
  return Buffer.from(base64, "base64");
}
