/**
 * Time until the demo of the server example can be used, in Chromium: node benches/pages.js [URL…]
 *
 * Each URL is that of a running server example; loads of several alternate. Without one, the program COUPLE_TEST_SERVER is started.
 * COUPLE_TEST_CLIENTS is the folder of tests/clients/install. COUPLE_BENCH_LOADS is the number of loads without a cache (9); each is
 * followed by two loads with it.
 */

import { Demo, launch, loadTime } from "../clients/js/test-browser/support.js";
import { Server } from "../clients/js/test/support/server.js";

const loads = Number(process.env.COUPLE_BENCH_LOADS ?? 9);
/** Milliseconds in which Chromium loads its own interface, after it has opened a window. */
const WINDOW_SETTLES = 2_000;

const server = process.argv.length > 2 ? null : await Server.start();
const urls = server ? [server.url] : process.argv.slice(2);
const times = urls.map(() => ({ "without a cache": /** @type {number[]} */ ([]), "with a cache": /** @type {number[]} */ ([]) }));
const browser = await launch();
try {
  for (let load = 0; load < loads; load++) {
    for (const [at, url] of urls.entries()) {
      const demo = await Demo.open(browser, url, { path: "/dev/info" });
      await demo.page.waitForTimeout(WINDOW_SETTLES);
      times[at]["without a cache"].push(await loadTime(demo.page, url));
      for (let again = 0; again < 2; again++) times[at]["with a cache"].push(await loadTime(demo.page, url));
      await demo.close();
    }
  }
} finally {
  await browser.close();
  await server?.stop();
}
for (const [at, url] of urls.entries()) {
  for (const [kind, measured] of Object.entries(times[at])) {
    const sorted = measured.map(Math.round).sort((one, other) => one - other);
    const median = sorted[Math.floor(sorted.length / 2)];
    console.log(`${url} ${kind}: ${median} ms (${sorted[0]}–${sorted.at(-1)}), ${sorted.length} loads`);
  }
}
