// A client that uses sockets as Node's net and http modules do: node talk.js ADDRESS PORT, where echo.js serves.
// One JSON object on standard output: what was tried, and "" or what was wrong.
const assert = require('assert');
const crypto = require('crypto');
const http = require('http');
const net = require('net');
const { once } = require('events');
const { setTimeout: sleep } = require('timers/promises');

const [host, port] = process.argv.slice(2);
const MIB = 1 << 20;
const block = crypto.randomBytes(3 * MIB + 1);

const sha256 = () => crypto.createHash('sha256');

async function open(mode) {
  const socket = net.connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true });
  await once(socket, 'connect');
  socket.write(mode);
  return socket;
}

// The writer's digest: pieces of all sizes, and no more of them than the peer takes.
async function send(socket, size) {
  const sum = sha256();
  for (let done = 0, piece; done < size; done += piece.length) {
    const length = Math.min(size - done, 1 + crypto.randomInt(done % 3 ? 300000 : 300));
    const from = crypto.randomInt(block.length - length);
    piece = block.subarray(from, from + length);
    sum.update(piece);
    if (!socket.write(piece)) await once(socket, 'drain');
  }
  socket.end();
  return sum.digest('hex');
}

// The digest of all that comes. A reader that `rests` makes the writer wait.
async function take(socket, rests) {
  const sum = sha256();
  let count = 0;
  socket.on('data', (data) => {
    sum.update(data);
    if (rests && count++ % 100 === 0) {
      socket.pause();
      setTimeout(() => socket.resume(), 1);
    }
  });
  await once(socket, 'end');
  return sum.digest('hex');
}

async function text(socket) {
  const parts = [];
  socket.on('data', (data) => parts.push(data));
  await once(socket, 'end');
  return Buffer.concat(parts).toString();
}

async function ask() {
  const socket = await open('Q');
  const answer = await text(socket);
  socket.end();
  return answer;
}

async function remembered(wanted) {
  for (const end = Date.now() + 20000; Date.now() < end; await sleep(10)) if (await ask() === wanted) return;
  assert.fail('the server has not seen it');
}

async function comesBack(mode, size, rests = false) {
  const socket = await open(mode);
  const [taken, sent] = await Promise.all([take(socket, rests), send(socket, size)]);
  assert.strictEqual(taken, sent);
}

async function digested(size) {
  const socket = await open('D');
  const [answer, sent] = await Promise.all([text(socket), send(socket, size)]);
  assert.strictEqual(answer, sent);
}

async function smallWrites(mode) {
  const socket = await open(mode);
  const sum = sha256();
  const taking = take(socket, false);
  for (let round = 0; round < 200; round++) {
    socket.cork();
    for (let i = 0; i < 50; i++) {
      const piece = block.subarray(i, i + 1 + ((round + i) % 40));
      sum.update(piece);
      socket.write(piece);
    }
    socket.uncork();
    for (let i = 0; i < 20; i++) {
      sum.update('small');
      socket.write('small');
    }
    if (socket.writableNeedDrain) await once(socket, 'drain');
  }
  socket.end();
  assert.strictEqual(await taking, sum.digest('hex'));
}

async function serverEndsFirst() {
  const socket = await open('S');
  assert.strictEqual(await text(socket), 'bye');
  await remembered(await send(socket, MIB));
}

async function serverResets() {
  const socket = await open('R');
  const [error] = await once(socket, 'error');
  assert.strictEqual(error.code, 'ECONNRESET');
}

async function clientResets() {
  const socket = await open('E');
  socket.write('some');
  await once(socket, 'data');
  socket.resetAndDestroy();
  await remembered('ECONNRESET');
}

async function clientGoesAway() {
  const socket = await open('E');
  const closed = once(socket, 'close');
  for (let i = 0; i < 4; i++) socket.write(block);
  await once(socket, 'data');
  socket.destroy();
  await closed;
  await comesBack('E', MIB);
}

async function post(agent, size) {
  const request = http.request({ host, port, agent, method: 'POST', path: '/' });
  const wanted = sha256();
  const taken = once(request, 'response').then(([response]) => take(response, size > MIB));
  for (let done = 0; done < size; done += block.length) {
    const piece = block.subarray(0, Math.min(block.length, size - done));
    wanted.update(piece);
    if (!request.write(piece)) await once(request, 'drain');
  }
  request.end();
  assert.strictEqual(await taken, wanted.digest('hex'));
}

async function requests() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  await Promise.all(Array.from({ length: 200 }, (_, i) => post(agent, (i * 997) % 100000)));
  await Promise.all([post(agent, 8 * MIB), post(agent, 20 * MIB)]);
  agent.destroy();
}

const tries = {
  'a stream each way': () => comesBack('E', 64 * MIB),
  'a stream each way, whose reader rests': () => comesBack('E', 8 * MIB, true),
  'a stream one way': () => digested(64 * MIB),
  'small writes': () => smallWrites('E'),
  'small writes, corked at both ends': () => smallWrites('C'),
  'a server that ends first': serverEndsFirst,
  'a server that resets': serverResets,
  'a client that resets': clientResets,
  'a client that goes away': clientGoesAway,
  'requests of HTTP': requests,
};

async function main() {
  const found = {};
  for (let i = 0; i < 3; i++) await comesBack('E', 20000); // shows how the programs read
  for (const [name, trying] of Object.entries(tries)) {
    const late = sleep(40000, undefined, { ref: false }).then(() => assert.fail('it does not end'));
    found[name] = await Promise.race([trying(), late]).then(() => '', String);
  }
  console.log(JSON.stringify(found));
  process.exit(0);
}

main();
