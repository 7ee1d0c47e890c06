/** Facts of the running server for its start page. */

const server = /** @type {HTMLElement} */ (document.querySelector("#server"));
const command = /** @type {HTMLElement} */ (document.querySelector("#command"));
command.textContent = `curl ${location.origin}/v1/accounts -H 'content-type: application/json' \\\n  -d '{"email":"ana@example.org","display_name":"Ana"}'`;

/**
 * @param {string} name
 * @param {string} kind
 * @param {string | null} [place]
 */
function show(name, kind, place) {
  const term = document.createElement("dt");
  term.textContent = name;
  const value = document.createElement("dd");
  value.append(kind);
  if (place) {
    const code = document.createElement("code");
    code.textContent = place;
    value.append(" in ", code);
  }
  server.append(term, value);
}

try {
  const response = await fetch("/dev/info");
  const info = await response.json();
  show("Version", info.version);
  show("Address", info.url);
  show("Data", info.store, info.database);
  show("Pictures", info.pictures, info.picture_folder);
  show("Mail", info.mail, info.mail_folder);
  show("Rate limits", info.limits ? "on" : "off");
} catch {
  show("State", "does not answer: is it still running?");
}
