// A station on the npm package `ws`: boots, sends one large CALL, answers one CALL, leaves.
//
//   node station.js URL PER_MESSAGE_DEFLATE(JSON) PAYLOAD(JSON)
//
// Prints one line of JSON when it is ready for the CALL, and one at the end: what was agreed on and what it saw.

const WebSocket = require('ws');

const [url, perMessageDeflate, payload] = process.argv.slice(2);
const seen = { extensions: '', answers: [], call: null, pongs: 0, code: null };
const socket = new WebSocket(url, 'ocpp1.6', { perMessageDeflate: JSON.parse(perMessageDeflate) });
const boot = { chargePointVendor: 'Vendor', chargePointModel: 'Model' };

const give_up = setTimeout(() => { console.error('no answer in 20 s'); process.exit(1); }, 20_000);

socket.on('upgrade', (response) => { seen.extensions = response.headers['sec-websocket-extensions'] ?? ''; });
socket.on('open', () => {
  socket.send(JSON.stringify([2, 'boot', 'BootNotification', boot]));
});
socket.on('message', (data, isBinary) => {
  const message = JSON.parse(data);
  if (isBinary) throw new Error('a binary message');
  if (message[0] === 2) {
    seen.call = message[3];
    socket.send(JSON.stringify([3, message[1], { status: 'Accepted' }]), () => socket.close(1000, 'done'));
    return;
  }
  seen.answers.push([message[0], message[1]]);
  if (message[1] === 'boot') {
    socket.ping('hello');
    // In fragments, the way a sender with little memory does it.
    const call = `[2,"large","MeterValues",${payload}]`;
    socket.send(call.slice(0, 1000), { fin: false });
    socket.send(call.slice(1000), { fin: true });
  } else {
    console.log(JSON.stringify({ ready: true }));
  }
});
socket.on('pong', () => { seen.pongs += 1; });
socket.on('error', (error) => { console.error(error); process.exit(1); });
socket.on('close', (code) => {
  clearTimeout(give_up);
  seen.code = code;
  console.log(JSON.stringify(seen));
});
