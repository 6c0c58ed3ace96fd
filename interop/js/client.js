// Checks a greeter with grpc-js: node client.js HOST:PORT. Each line of its output is a check
// and "ok", or what is wrong; it exits with 1 if anything is.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Greeter, grpc, reason } from './greeter.js';

const many = 10_000;
const client = new Greeter(process.argv[2], grpc.credentials.createInsecure());

// A call that does not end is a failure.
const limit = () => ({ deadline: Date.now() + 20_000 });

// once calls a method with one response: the response, header and trailer, or the error.
function once(method, request, metadata = new grpc.Metadata(), options = limit()) {
  const result = { header: null, trailer: null };
  return new Promise((resolve) => {
    const args = request === undefined ? [] : [request];
    const call = client[method](...args, metadata, options, (error, response) => {
      result.error = error;
      result.response = response;
    });
    result.call = call;
    call.on('metadata', (m) => { result.header = m; });
    call.on('status', (s) => {
      result.trailer = s.metadata;
      setImmediate(() => resolve(result));
    });
    result.started?.();
  });
}

// received gives all responses of a call, its header, and its status.
function received(call, each = () => {}) {
  const responses = [];
  let header = null;
  return new Promise((resolve) => {
    call.on('metadata', (m) => { header = m; });
    call.on('data', (r) => { responses.push(r); each(responses.length); });
    call.on('error', () => {}); // the status says more
    call.on('status', (status) => resolve({ responses, header, status }));
  });
}

// sendMany sends many names, as fast as they are taken.
async function sendMany(call) {
  for (let i = 0; i < many; i++) {
    if (!call.write({ name: 'Ada' })) await new Promise((go) => call.once('drain', go));
  }
  call.end();
}

function assertAll(responses) {
  assert.equal(responses.length, many);
  responses.forEach((r, i) => assert.deepEqual({ ...r }, { text: 'hello Ada', number: i }));
}

async function cancelled() {
  const { error, response } = await once('greet', { name: 'cancelled' });
  assert.equal(error, null);
  return response.number;
}

// noticed runs a call that it cancels, and checks that the server counts that.
async function noticed(run, code = grpc.status.CANCELLED) {
  const before = await cancelled();
  assert.equal(await run(), code);
  for (let i = 0; await cancelled() === before; i++) {
    assert.ok(i < 1000, 'the server does not notice');
    await sleep(5);
  }
  assert.equal(await cancelled(), before + 1);
}

function echoMetadata() {
  const m = new grpc.Metadata();
  m.add('x-echo', 'one, two');
  m.add('x-echo-bin', Buffer.from([0, 1, 254, 255]));
  return m;
}

function assertEchoed(header, trailer) {
  assert.deepEqual(header.get('x-echo'), ['one, two']);
  assert.deepEqual(trailer.get('x-echo-bin'), [Buffer.from([0, 1, 254, 255])]);
}

const checks = {
  async 'unary'() {
    const { error, response } = await once('greet', { name: 'Ada' });
    assert.equal(error, null);
    assert.equal(response.text, 'hello Ada');
  },
  async 'client stream'() {
    let call;
    const done = new Promise((resolve, reject) => {
      call = client.greetAll(new grpc.Metadata(), limit(), (err, r) => (err ? reject(err) : resolve(r)));
    });
    await sendMany(call);
    assert.equal((await done).number, many);
  },
  async 'server stream'() {
    const { responses, status } = await received(client.greetOften({ name: 'Ada', count: many }, new grpc.Metadata(), limit()));
    assert.equal(status.code, grpc.status.OK);
    assertAll(responses);
  },
  async 'bidi stream'() {
    const call = client.greetEach(new grpc.Metadata(), limit());
    const [{ responses, status }] = await Promise.all([received(call), sendMany(call)]);
    assert.equal(status.code, grpc.status.OK);
    assertAll(responses);
  },
  async 'error'() {
    const { error } = await once('greet', { name: 'error' });
    assert.equal(error.code, grpc.status.FAILED_PRECONDITION);
    assert.equal(error.details, reason);
    assert.deepEqual(error.metadata.get('x-why'), ['asked for']);
  },
  async 'metadata'() {
    const { error, header, trailer } = await once('greet', { name: 'Ada' }, echoMetadata());
    assert.equal(error, null);
    assertEchoed(header, trailer);
    const call = client.greetEach(echoMetadata(), limit());
    call.end();
    const stream = await received(call);
    assert.equal(stream.status.code, grpc.status.OK);
    assertEchoed(stream.header, stream.status.metadata);
  },
  async 'cancel unary'() {
    await noticed(() => new Promise((resolve) => {
      const call = client.greet({ name: 'sleep' }, new grpc.Metadata(), limit(), (err) => resolve(err?.code));
      setTimeout(() => call.cancel(), 50);
    }));
  },
  async 'cancel server stream'() {
    await noticed(async () => {
      const call = client.greetOften({ name: 'Ada', count: 2 ** 40 }, new grpc.Metadata(), limit());
      const { status } = await received(call, (n) => { if (n === 100) call.cancel(); });
      return status.code;
    });
  },
  async 'cancel bidi stream'() {
    await noticed(async () => {
      const call = client.greetEach(new grpc.Metadata(), limit());
      call.write({ name: 'sleep' });
      const { status } = await received(call, () => call.cancel());
      return status.code;
    });
  },
  async 'deadline'() {
    await noticed(async () => {
      const { error } = await once('greet', { name: 'sleep' }, new grpc.Metadata(), { deadline: Date.now() + 100 });
      return error.code;
    }, grpc.status.DEADLINE_EXCEEDED);
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`${name}: ok`);
  } catch (err) {
    console.log(`${name}: ${(err.details ?? err.message).replaceAll(/\s+/g, ' ').slice(0, 300)}`);
    process.exitCode = 1;
  }
}
client.close();
