/** Waits for the style of the screens that a signed-in user sees: a module that imports this one runs once the style applies. */

import { h } from "./dom.js";

const style = h("link", { rel: "stylesheet", href: new URL("signed-in.css", import.meta.url).href });
await new Promise((resolve, reject) => {
  style.addEventListener("load", resolve);
  style.addEventListener("error", () => reject(new TypeError(`cannot load ${style.href}`)));
  document.head.append(style);
});
