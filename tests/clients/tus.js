// npm `tus-js-client`: uploads a file, and goes on by itself wherever it was cut; prints where the picture is.
const fs = require("node:fs");
const tus = require("tus-js-client");
const [base, token, file] = process.argv.slice(2);

const upload = new tus.Upload(fs.readFileSync(file), {
  endpoint: `${base}/v1/uploads`,
  headers: { authorization: `Bearer ${token}` },
  metadata: { purpose: "photo" },
  chunkSize: 128 * 1024,
  retryDelays: Array(200).fill(20),
  onError: (error) => { console.error(String(error)); process.exit(1); },
  onSuccess: ({ lastResponse }) => { console.log(lastResponse.getHeader("content-location")); process.exit(0); },
});
upload.start();
