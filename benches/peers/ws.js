// npm `ws`: a set of listeners per couple; a frame is encoded once for all of them.
const { createServer } = require("node:http");
const { WebSocketServer } = require("ws");
const talk = require("./talk");

const couples = new Map();
const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false, maxPayload: 4096 });
sockets.on("connection", (socket, { url }) => {
  const couple = Number(new URL(url, "http://h").searchParams.get("couple"));
  if (!couples.has(couple)) couples.set(couple, new Set());
  couples.get(couple).add(socket);
  socket.on("close", () => couples.get(couple).delete(socket));
});
talk((couple, frame) => {
  const text = JSON.stringify(frame);
  for (const socket of couples.get(couple) ?? []) socket.send(text);
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => console.log(`127.0.0.1:${server.address().port}`));
