/** Avatars and photos. */

import { fill, h } from "./dom.js";
import { explain } from "./texts.js";
import { thumbHashImage } from "./thumbhash.js";

/** @param {string | null | undefined} name */
export const initial = (name) => [...(name ?? "?")][0]?.toUpperCase() ?? "?";

/** Time, in milliseconds, for which an address must still work. */
const MARGIN = 30_000;

/** @type {WeakMap<any, Map<string, Promise<any>>>} pictures by client and id */
const known = new WeakMap();

/**
 * A picture with addresses that still work.
 * @param {any} client
 * @param {string} id
 * @param {boolean} [again] the last addresses did not work
 * @returns {Promise<any>}
 */
export async function picture(client, id, again = false) {
  const pictures = known.get(client) ?? new Map();
  known.set(client, pictures);
  const found = again ? undefined : await pictures.get(id)?.catch(() => {});
  const expiry = found?.renditions[0]?.signed_url_expires_at;
  if (expiry && Date.parse(expiry) > Date.now() + MARGIN) return found;
  const asked = client.media.get(id);
  pictures.set(id, asked);
  return asked;
}

/**
 * The address of a rendition on this origin: the server's public address can be another name of it.
 * @param {any} rendition
 */
export function addressOf({ signed_url }) {
  const { pathname, search } = new URL(signed_url, location.href);
  return pathname + search;
}

/**
 * Loads a rendition into an image, and asks for a new address once if it fails.
 * @param {any} client
 * @param {string} id
 * @param {HTMLImageElement} image
 * @param {string[]} names renditions, best first
 */
export async function load(client, id, image, names, again = false) {
  const { renditions } = await picture(client, id, again);
  const chosen = names.map((name) => renditions.find((/** @type {any} */ one) => one.name === name)).find(Boolean) ?? renditions[0];
  if (!chosen) throw new Error("the picture has no renditions");
  image.src = addressOf(chosen);
  try {
    await image.decode();
  } catch (error) {
    if (again) throw error;
    await load(client, id, image, names, true);
  }
}

/**
 * @param {any} client
 * @param {any} media avatar, or null
 * @param {string | null | undefined} name
 * @param {string} [size]
 */
export function avatar(client, media, name, size = "") {
  const element = h("span", { class: `avatar ${size}`, "aria-hidden": "true" }, initial(name));
  if (media) {
    const image = h("img", { alt: "" });
    load(client, media.id, image, ["256", "128"]).then(
      () => fill(element, [image]),
      () => {},
    );
  }
  return element;
}

/**
 * A photo of the log: progress, placeholder, picture, full view.
 * @param {import("./phone.js").Phone} phone
 */
export function photoView(phone) {
  const { client } = phone;
  const image = h("img", { alt: "", class: "photo-image", hidden: true });
  const note = h("span", { class: "photo-note" });
  const progress = h("progress", { max: "100", "aria-label": "Upload", hidden: true });
  const element = h("button", { type: "button", class: "photo-button", onclick: open }, image, note, progress);
  /** @type {any} */
  let entry = null;
  let loaded = "";
  let previewed = "";
  let sized = "";
  let placeholder = "";

  function open() {
    if (entry?.body?.media?.state === "ready") void import("./viewer.js").then(({ openPhoto }) => openPhoto(phone, entry));
  }

  /** @param {any} next @param {any} upload */
  function update(next, upload) {
    entry = next;
    const body = entry?.body ?? upload?.entry?.body ?? {};
    const media = body.media ?? {};
    const title = body.name || upload?.name || "Photo";
    element.setAttribute("aria-label", media.state === "ready" ? `Photo, full view: ${title}` : `Photo: ${title}`);
    progress.hidden = !upload;
    if (upload) progress.value = upload.size > 0 ? (upload.sent / upload.size) * 100 : 0;
    note.textContent = upload
      ? title
      : media.state === "rejected"
        ? explain({ code: media.reason, message: "The server could not use this picture" })
        : "";
    setSize(media);
    if (media.placeholder && media.placeholder !== placeholder) {
      placeholder = media.placeholder;
      element.style.backgroundImage = `url("${thumbHashImage(placeholder)}")`;
    }
    const preview = phone.preview(entry?.client_id ?? upload?.entry?.client_id);
    if (preview && !loaded && preview !== previewed) {
      previewed = preview;
      image.src = preview;
      image.hidden = false;
      image.addEventListener("load", () => setSize({ width: image.naturalWidth, height: image.naturalHeight }), { once: true });
      image.addEventListener("error", () => (image.hidden = true), { once: true });
    }
    if (media.state === "ready" && body.media_id !== loaded) {
      loaded = body.media_id;
      const full = h("img", { alt: "", class: "photo-image" });
      load(client, body.media_id, full, ["1080", "320"]).then(
        () => {
          image.hidden = true;
          element.prepend(full);
          phone.dropPreview(entry?.client_id);
        },
        () => {
          loaded = "";
          note.textContent = "The photo cannot be loaded now.";
        },
      );
    }
  }

  /** The room for the picture is reserved before its bytes arrive. */
  function setSize(/** @type {{ width?: number, height?: number }} */ { width, height }) {
    const size = width && height ? `${width} / ${height}` : "";
    if (!size || size === sized) return;
    sized = size;
    // Very long pictures are cut in the log.
    const ratio = Math.min(2.5, Math.max(0.6, Number(width) / Number(height)));
    element.style.aspectRatio = String(ratio);
  }

  return { element, update, close: () => {} };
}
