// npm `event-source-polyfill`: reconnects by itself, with its cursor in the query's `lastEventId`.
const { EventSourcePolyfill } = require("event-source-polyfill");
const [base, token] = process.argv.slice(2);

const headers = { authorization: `Bearer ${token}` };
const source = new EventSourcePolyfill(`${base}/v1/couple/live?after=0&_=1`, { headers });
source.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "entry") console.log(frame.entry.seq, frame.entry.body.text);
};
// After an error that closes it for good, the test fails, because it waits for entries that never arrive.
source.onerror = ({ status }) => {
  if (source.readyState === EventSourcePolyfill.CLOSED) console.error(`closed for good: ${status}`);
};
