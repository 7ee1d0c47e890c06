/** A photo in full view. */

import { dateOf } from "./dates.js";
import { h } from "./dom.js";
import { load } from "./pictures.js";
import { explain } from "./texts.js";
import { thumbHashImage } from "./thumbhash.js";

/**
 * @param {import("./phone.js").Phone} phone
 * @param {any} entry of kind `photo`
 */
export function openPhoto(phone, entry) {
  const { media_id, media, name } = entry.body;
  const image = h("img", { class: "full", alt: name ? `Photo ${name}` : "Photo" });
  // The picture's place and colours, until it has arrived.
  image.width = media.width;
  image.height = media.height;
  if (media.placeholder) image.style.backgroundImage = `url("${thumbHashImage(media.placeholder)}")`;
  const problem = h("p", { class: "problem", role: "alert" });
  const caption = h("p", { class: "small" }, name && h("bdi", {}, name), name && " · ", dateOf(entry.created_at));
  phone.sheet("Photo", [h("div", { class: "full-frame" }, image), caption, problem], { class: "photo-sheet" });
  load(phone.client, media_id, image, ["2048", "1080"]).catch(
    (error) => (problem.textContent = explain({ code: error.code, message: "The photo cannot be loaded now" })),
  );
}
