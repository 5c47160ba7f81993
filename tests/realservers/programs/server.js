// Node's HTTP server: node [--insecure-http-parser] server.js PORT JOURNAL
const fs = require('fs');
const http = require('http');
const [port, journal] = process.argv.slice(2);
const escape = (text) => encodeURI(String(text)).replace(/%25/g, '%');
http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  const line = [request.method, request.url, path, request.headers.host || '', 200].map(escape).join('\t') + '\n';
  fs.appendFileSync(journal, line);
  request.resume();
  request.on('end', () => response.end('ran ' + line));
}).listen(Number(port), '127.0.0.1');
