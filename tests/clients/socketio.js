// npm `socket.io-client`: reconnects by itself, and sends its cursor with each handshake.
const { io } = require("socket.io-client");
const [base, token] = process.argv.slice(2);
let cursor = "0";

const transports = ["websocket"];
const auth = (say) => say({ token, cursor });
const socket = io(base, { transports, auth, reconnectionDelay: 50, reconnectionDelayMax: 200 });
socket.onAny((_name, frame) => {
  if (frame.entry) console.log(frame.entry.seq, frame.entry.body.text);
  if (frame.cursor) cursor = frame.cursor;
});
socket.on("connect_error", ({ message }) => {
  if (!socket.active) console.error(message);
});
