// npm `ws`: reconnects with the cursor of the last frame that it received.
const { WebSocket } = require("ws");
const [base, token] = process.argv.slice(2);
let cursor = "0";

function connect() {
  const url = `${base.replace("http", "ws")}/v1/couple/live?after=${cursor}`;
  const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } });
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    if (frame.type === "entry") console.log(frame.entry.seq, frame.entry.body.text);
    if (frame.cursor) cursor = frame.cursor;
  });
  socket.on("error", () => {});
  socket.on("close", () => setTimeout(connect, 50));
}
connect();
