// A peer that uses sockets as Node's net and http modules do: node echo.js ADDRESS. Modes as in echo.go, and for talk.js:
// 'C': all comes back, in many small writes that are corked together; 'S': "bye" and the end come at once, and what comes
// then is remembered; 'R': a reset comes back; 'Q': the digest of what was remembered last, or the error's code.
// A request of HTTP: its body comes back.
const crypto = require('crypto');
const http = require('http');
const net = require('net');

let remembered = '';

function corked(socket, data) {
  socket.cork();
  for (let at = 0; at < data.length; at += 100) socket.write(data.subarray(at, at + 100));
  socket.uncork();
  return !socket.writableNeedDrain;
}

function echo(socket, send) {
  socket.on('data', (data) => {
    if (data.length && !send(data)) socket.pause();
  });
  socket.on('drain', () => socket.resume());
  socket.on('end', () => socket.end());
}

function digest(socket, done) {
  const sum = crypto.createHash('sha256');
  socket.on('data', (data) => sum.update(data));
  socket.on('end', () => done(sum.digest('hex')));
}

const modes = {
  E: (socket) => echo(socket, (data) => socket.write(data)),
  C: (socket) => echo(socket, (data) => corked(socket, data)),
  D: (socket) => digest(socket, (sum) => socket.end(sum)),
  S: (socket) => {
    socket.end('bye');
    digest(socket, (sum) => { remembered = sum; });
  },
  R: (socket) => socket.resetAndDestroy(),
  Q: (socket) => socket.end(remembered),
};

const server = http.createServer((request, response) => request.pipe(response));
net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on('error', (error) => { remembered = error.code; });
  socket.once('data', (data) => {
    const mode = modes[String.fromCharCode(data[0])];
    socket.pause();
    socket.unshift(mode ? data.subarray(1) : data);
    if (mode) mode(socket);
    else server.emit('connection', socket);
    socket.resume();
  });
}).listen({ host: process.argv[2], port: 0, backlog: 512 }, function listening() {
  console.log(this.address().port);
});
