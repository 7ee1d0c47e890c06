/** Profile, couple, sessions and account of a user. */

import { dateOf } from "./dates.js";
import { field, fill, form, h } from "./dom.js";
import { avatar } from "./pictures.js";
import { explain } from "./texts.js";

/** @param {import("./phone.js").Phone} phone */
export async function openSettings(phone) {
  const { client } = phone;
  const { account, pairing } = client;
  const body = h("div", { class: "stack settings" }, h("p", { class: "muted" }, "Loading …"));
  const end = client.on("couple", () => showFace());
  phone.sheet("Settings", [body], { closed: end });

  const section = (/** @type {string} */ title, /** @type {any[]} */ ...children) =>
    h("section", { class: "stack", "aria-label": title }, h("h3", {}, title), children);
  const save = h("button", {}, "Save");
  const tell = async (/** @type {Promise<unknown>} */ promise) => {
    try {
      await promise;
    } catch (error) {
      void phone.report(error);
    }
  };

  // Profile.

  const face = h("div", { class: "row" });
  const file = h("input", { type: "file", accept: "image/*", hidden: true, onchange: choose });

  function showFace() {
    const media = client.couple ? client.couple.me.avatar : phone.me?.avatar;
    const remove = async () => {
      await account.clearAvatar();
      if (phone.me) phone.me.avatar = null;
      await client.refresh();
      showFace();
    };
    fill(face, [
      avatar(client, media, phone.userName, "big"),
      h("button", { type: "button", onclick: () => file.click() }, media ? "Change picture" : "Choose picture"),
      media && h("button", { type: "button", class: "plain", onclick: () => tell(remove()) }, "Remove"),
    ]);
  }

  async function choose() {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    const { cropAvatar } = await import("./crop.js");
    cropAvatar(phone, chosen, async (crop) => {
      const { id } = await client.media.upload(chosen, { purpose: "avatar", crop });
      const media = await client.media.ready((await client.media.finished(id)).id);
      if (media.state === "rejected") throw Object.assign(new Error(media.detail ?? "rejected"), { code: media.reason });
      await account.setAvatar(media.id);
      if (phone.me) phone.me.avatar = media;
      await client.refresh();
      showFace();
      phone.changed();
    });
  }

  function profile() {
    const name = field("Your name", { name: "display_name", required: true, value: phone.me.display_name, dir: "auto" });
    const rename = async (/** @type {any} */ values) => {
      phone.me = { ...phone.me, ...(await account.update(values)) };
      await client.refresh();
      phone.changed();
      phone.notify("Saved.", { seconds: 3 });
    };
    return section(
      "You",
      face,
      file,
      form([name], [h("div", { class: "row end" }, name.element, save.cloneNode(true))], rename),
      h("p", { class: "small muted" }, phone.me.email),
    );
  }

  // Couple.

  function couple() {
    if (!client.couple) return null;
    const { title, anniversary, partner } = client.couple;
    const fields = [
      field("Title", { name: "title", value: title ?? "", dir: "auto" }),
      field("Anniversary", { name: "anniversary", type: "date", value: anniversary ?? "" }),
    ];
    const describe = async (/** @type {any} */ { title, anniversary }) => {
      await pairing.describe({ title: title || null, anniversary: anniversary || null });
      phone.notify("Saved.", { seconds: 3 });
    };
    const leave = () =>
      confirm(
        phone,
        {
          title: "Leave the couple?",
          text: "The couple ends immediately, for both of you. If you pair again, you can restore your messages together.",
          action: "Leave",
          option: `Block ${partner.display_name ?? "the partner"}: no more invites`,
        },
        (block) => pairing.leave({ block }),
      );
    return section(
      "Both of you",
      form(fields, [fields.map(({ element }) => element), save.cloneNode(true)], describe),
      h("button", { type: "button", class: "danger", onclick: leave }, "Leave the couple"),
    );
  }

  // Password.

  function password() {
    const { has_password } = phone.me;
    const current = field("Current password", {
      name: "current_password",
      type: "password",
      autocomplete: "current-password",
      required: true,
    });
    const next = field("New password", {
      name: "new_password",
      type: "password",
      autocomplete: "new-password",
      required: true,
      hint: "At least 15 characters. All other sessions end.",
    });
    const fields = has_password ? [current, next] : [next];
    const set = async (/** @type {any} */ values) => {
      await account.setPassword(values);
      phone.me.has_password = true;
      phone.notify("The password was set.");
      show();
    };
    return section(
      "Password",
      form(
        fields,
        [fields.map(({ element }) => element), h("button", {}, has_password ? "Change the password" : "Set a password")],
        set,
      ),
    );
  }

  // Sessions and blocks.

  const sessions = h("ul", { class: "list" });
  const blocks = h("ul", { class: "list" });

  async function showSessions() {
    const all = await account.sessions();
    const end = (/** @type {string} */ id) => () => tell(account.endSession(id).then(showSessions));
    fill(sessions, [
      all.map(({ id, device, seen_at, current }) =>
        h(
          "li",
          { class: "row between" },
          h(
            "div",
            { class: "grow" },
            h("p", { class: "clip", dir: "auto", title: device }, device ? deviceName(device) : "Unknown device"),
            h("p", { class: "small muted" }, current ? "This phone" : `Last used ${dateOf(seen_at)}`),
          ),
          !current && h("button", { type: "button", class: "danger", onclick: end(id) }, "End"),
        ),
      ),
      all.length > 1 &&
        h("li", {}, h("button", { type: "button", onclick: () => tell(account.endOtherSessions().then(showSessions)) }, "End all others")),
    ]);
  }

  async function showBlocks() {
    const all = await pairing.blocks();
    const unblock = (/** @type {string} */ id) => () => tell(pairing.unblock(id).then(showBlocks));
    fill(blocks, [
      all.length === 0 && h("li", { class: "muted" }, "None"),
      all.map(({ id, display_name, since }) =>
        h(
          "li",
          { class: "row between" },
          h(
            "div",
            { class: "grow" },
            h("p", { dir: "auto" }, display_name ?? "Deleted account"),
            h("p", { class: "small muted" }, `Since ${dateOf(since)}`),
          ),
          h("button", { type: "button", onclick: unblock(id) }, "Unblock"),
        ),
      ),
    ]);
  }

  // Account.

  async function download() {
    const data = await account.export();
    const address = URL.createObjectURL(new Blob([JSON.stringify(data, null, 2)], { type: "application/json" }));
    h("a", { href: address, download: "my-data.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  function remove() {
    const act = async () => {
      const { deletion_due } = await account.remove();
      const due = deletion_due ? ` on ${dateOf(deletion_due)}` : "";
      phone.notify(`The account will be deleted${due}. Signing in before that cancels it.`, { seconds: 20 });
    };
    confirm(
      phone,
      {
        title: "Delete the account?",
        text: "All sessions end now. The account, your messages and photos are deleted after some days; signing in before cancels it.",
        action: "Delete",
      },
      act,
    );
  }

  function show() {
    showFace();
    fill(body, [
      profile(),
      couple(),
      password(),
      section("Sessions", sessions),
      section("Blocked", blocks),
      section(
        "Account",
        h("button", { type: "button", onclick: () => tell(download()) }, "Download my data"),
        h("button", { type: "button", onclick: () => tell(account.signOut()) }, "Sign out"),
        h("button", { type: "button", class: "danger", onclick: remove }, "Delete the account"),
      ),
    ]);
  }

  try {
    phone.me = await account.me();
    show();
    await Promise.all([showSessions(), showBlocks()]);
  } catch (error) {
    fill(body, [
      h("p", { class: "problem", role: "alert" }, explain(error)),
      // Works without the server.
      h("button", { type: "button", onclick: () => tell(account.signOut()) }, "Sign out"),
    ]);
  }
}

/**
 * Browser and system of a `User-Agent` header; other text stays as it is.
 * @param {string} agent
 */
function deviceName(agent) {
  // Browsers also name those that they are compatible with, the most specific one first here.
  const browser = ["Edg", "Firefox", "Chrome", "Safari"].find((name) => agent.includes(`${name}/`));
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"].find((name) => agent.includes(name));
  return browser && system ? `${browser.replace("Edg", "Edge")} on ${system}` : agent;
}

/**
 * Asks before something that cannot be undone.
 * @param {import("./phone.js").Phone} phone
 * @param {{ title: string, text: string, action: string, option?: string }} question
 * @param {(option: boolean) => Promise<unknown>} act
 */
function confirm(phone, { title, text, action, option }, act) {
  const check = option ? h("input", { type: "checkbox" }) : null;
  const problem = h("p", { class: "problem", role: "alert" });
  const run = async () => {
    go.disabled = true;
    problem.textContent = "";
    try {
      await act(check?.checked ?? false);
      sheet.close();
    } catch (error) {
      problem.textContent = explain(error);
    }
    go.disabled = false;
  };
  const go = h("button", { type: "button", class: "danger solid", onclick: run }, action);
  const buttons = h("div", { class: "row" }, h("button", { type: "button", onclick: () => sheet.close() }, "Cancel"), go);
  const sheet = phone.sheet(title, [h("p", {}, text), check && h("label", { class: "check" }, check, option), problem, buttons], {
    class: "low",
  });
}
