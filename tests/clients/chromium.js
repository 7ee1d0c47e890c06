// EventSource or WebSocket in Chromium, on a page of the server's origin, or all requests of a page of another origin:
// chromium.js BASE TOKEN PROFILE-FOLDER eventsource|websocket, or … crossOrigin|uppy|mailedPage PAGE. Driven over the DevTools protocol;
// prints what the page logs.
const { spawn } = require("node:child_process");
const [base, token, profile, kind, page] = process.argv.slice(2);

const onPage = {
  eventsource: function (token) {
    const source = new EventSource(`/v1/couple/live?after=0&access_token=${token}`);
    source.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === "entry") console.log(`${frame.entry.seq} ${frame.entry.body.text}`);
    };
  },
  websocket: function (token) {
    let cursor = "0";
    function connect() {
      const url = `${location.origin.replace("http", "ws")}/v1/couple/live?after=${cursor}`;
      // A browser cannot send a header: its token is offered as a subprotocol.
      const socket = new WebSocket(url, ["couple", token]);
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.type === "entry") console.log(`${frame.entry.seq} ${frame.entry.body.text}`);
        if (frame.cursor) cursor = frame.cursor;
      };
      socket.onclose = () => setTimeout(connect, 50);
    }
    connect();
  },
  mailedPage: function () {
    const [form, lead, said] = ["form", "lead", "said"].map((id) => document.getElementById(id));
    const report = () => {
      const visible = [document.querySelector("h1"), lead, form, said].filter((element) => !element.hidden);
      if (form.hidden) console.log(`${document.title}: ${visible.map((element) => element.textContent).join(" | ")}`);
    };
    new MutationObserver(report).observe(form, { attributeFilter: ["hidden"] });
    form.querySelector("button").click();
  },
  crossOrigin: async function (token, base) {
    const text = "from another origin";
    const authorization = `Bearer ${token}`;
    const read = (client) => ({ data }) => {
      const { entry } = JSON.parse(data);
      if (entry?.body?.text === text) console.log(`${client} ${entry.body.text}`);
    };
    const live = `${base}/v1/couple/live?after=0`;
    new EventSource(`${live}&access_token=${token}`).onmessage = read("EventSource");
    new WebSocket(live.replace("http", "ws"), ["couple", token]).onmessage = read("WebSocket");
    const sent = await fetch(`${base}/v1/couple/entries`, {
      method: "POST",
      headers: { authorization, "content-type": "application/json", "idempotency-key": "1" },
      body: JSON.stringify({ client_id: "1", kind: "text", body: { text } }),
    });
    console.log(`fetch ${sent.status} ${sent.headers.has("x-request-id")}`);
    const metadata = `purpose ${btoa("photo")}`;
    const upload = await fetch(`${base}/v1/uploads`, {
      method: "POST",
      headers: { authorization, "tus-resumable": "1.0.0", "upload-length": "9", "upload-metadata": metadata },
    });
    console.log(`tus ${upload.status} ${upload.headers.has("location")}`);
    const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
    canvas.getContext("2d").fillRect(100, 100, 200, 200);
    const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const media = `${base}/v1/media`;
    let answer = await fetch(`${media}?purpose=photo`, { method: "POST", headers: { authorization }, body: picture });
    let { id, state, renditions } = await answer.json();
    while (state === "processing") {
      await new Promise((resolve) => setTimeout(resolve, 50));
      answer = await fetch(`${media}/${id}`, { headers: { authorization } });
      ({ state, renditions } = await answer.json());
    }
    const image = new Image();
    image.onload = () => console.log(`img ${image.naturalWidth} × ${image.naturalHeight}`);
    image.onerror = () => console.log("img failed");
    // The URL begins with the server's public URL, which differs from its address in the test.
    const { pathname, search } = new URL(renditions.find(({ name }) => name === "320").signed_url, base);
    image.src = base + pathname + search;
    document.body.append(image);
  },
  uppy: async function (token, base) {
    const uppy = newUppy(`${base}/v1/media?purpose=photo`, `Bearer ${token}`);
    const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 160 });
    const context = canvas.getContext("2d");
    const noise = context.createImageData(canvas.width, canvas.height);
    for (let n = 0; n < 10; n++) {
      for (let at = 0; at < noise.data.length; at += 51200) crypto.getRandomValues(noise.data.subarray(at, at + 51200));
      context.putImageData(noise, 0, 0);
      const data = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
      uppy.addFile({ name: `photo-${n}.png`, type: data.type, data });
    }
    const { successful, failed } = await uppy.upload();
    const ids = new Set(successful.map(({ response }) => response.body.id));
    console.log(`uppy ${successful.length} ${failed.length} ${ids.size}`);
  },
};

const quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
// Containers and root lack what the sandbox needs; the browser loads pages of our own server only.
const browser = spawn(
  process.env.COUPLE_TEST_CHROMIUM || "chromium",
  ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", ...quiet]
    .concat([`--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank"]),
  // Chromium reads commands from descriptor 3 and answers on 4, and exits when the pipe closes.
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
const [commands, answers] = [browser.stdio[3], browser.stdio[4]];
commands.on("error", () => {});
browser.on("error", (error) => console.error(error.message));
browser.on("exit", (code) => process.exit(code ?? 1));
// The parent process ends this program by closing its standard input.
process.stdin.on("end", () => call("Browser.close")).resume();

const waiting = new Map();
let [last, loaded, text] = [0, null, ""];
answers.setEncoding("utf8").on("data", (part) => {
  const messages = (text + part).split("\0");
  text = messages.pop();
  for (const message of messages) {
    const { id, method, params, result, error } = JSON.parse(message);
    if (error) console.error(error.message);
    if (id) waiting.get(id)(result ?? {});
    if (method === "Page.loadEventFired") loaded();
    if (method === "Runtime.consoleAPICalled") console.log(params.args[0].value);
    if (method === "Runtime.exceptionThrown") console.error(params.exceptionDetails.exception?.description);
  }
});

function call(method, params, sessionId) {
  return new Promise((resolve) => {
    waiting.set(++last, resolve);
    commands.write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
  });
}

(async () => {
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
  await call("Runtime.enable", {}, sessionId);
  await call("Page.enable", {}, sessionId);
  const ready = new Promise((resolve) => (loaded = resolve));
  await call("Page.navigate", { url: page ?? `${base}/healthz` }, sessionId);
  await ready;
  await call("Runtime.evaluate", { expression: `(${onPage[kind]})("${token}", "${base}")` }, sessionId);
})();
