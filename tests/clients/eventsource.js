// npm `eventsource`: reconnects by itself, as a browser does, after the server's `retry`.
const { EventSource } = require("eventsource");
const [base, token] = process.argv.slice(2);

const withToken = (url, init) => fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });
const source = new EventSource(`${base}/v1/couple/live?after=0`, { fetch: withToken });
source.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "entry") console.log(frame.entry.seq, frame.entry.body.text);
};
