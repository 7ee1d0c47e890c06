// npm `tus-js-client`: uploads a file, continues by itself after an interruption, and prints the URL of the picture.
// Arguments: base URL, session token, file, and options of the client as JSON. "silence": [ms, ...]: each connection pauses for that
// time in the middle of its body.
const fs = require("node:fs");
const { Readable } = require("node:stream");
const tus = require("tus-js-client");
const [base, token, file, json] = process.argv.slice(2);
const { silence = [], ...options } = JSON.parse(json ?? "{}");

// Node's HTTP stack, with a pause in the middle of a body, like a gap in a mobile network.
class SilentStack extends tus.DefaultHttpStack {
  createRequest(method, url) {
    const request = super.createRequest(method, url);
    const send = request.send.bind(request);
    request.send = (body) => {
      const pause = method === "PATCH" ? silence.shift() : undefined;
      if (pause === undefined || body === undefined) return send(body);
      request.setHeader("content-length", String(body.length));
      const half = Math.floor(body.length / 2);
      return send(Readable.from((async function* () {
        yield body.subarray(0, half);
        await new Promise((resolve) => setTimeout(resolve, pause));
        yield body.subarray(half);
      })()));
    };
    return request;
  }
}

const upload = new tus.Upload(fs.readFileSync(file), {
  endpoint: `${base}/v1/uploads`,
  headers: { authorization: `Bearer ${token}` },
  metadata: { purpose: "photo" },
  chunkSize: 128 * 1024,
  retryDelays: Array(200).fill(20),
  ...(silence.length > 0 ? { httpStack: new SilentStack({}) } : {}),
  ...options,
  onError: (error) => { console.error(String(error)); process.exit(1); },
  onSuccess: ({ lastResponse }) => { console.log(lastResponse.getHeader("content-location")); process.exit(0); },
});
upload.start();
