// A greeter on grpc-js. It prints the port that it listens on.
import { Greeter, grpc, reason } from './greeter.js';

let cancelled = 0;

// echo gives what comes back of a request's metadata.
function echo(call) {
  const header = new grpc.Metadata();
  for (const v of call.metadata.get('x-echo')) header.add('x-echo', v);
  const trailer = new grpc.Metadata();
  for (const v of call.metadata.get('x-echo-bin')) trailer.add('x-echo-bin', v);
  return { header, trailer };
}

// whenCancelled counts a call that is cancelled.
function whenCancelled(call, then = () => {}) {
  call.on('cancelled', () => {
    cancelled++;
    then();
  });
}

function greet(call, done) {
  const { name } = call.request;
  if (name === 'error') {
    const metadata = new grpc.Metadata();
    metadata.add('x-why', 'asked for');
    done({ code: grpc.status.FAILED_PRECONDITION, details: reason, metadata });
  } else if (name === 'sleep') {
    whenCancelled(call, () => done({ code: grpc.status.CANCELLED }));
  } else if (name === 'cancelled') {
    done(null, { number: cancelled });
  } else {
    const { header, trailer } = echo(call);
    call.sendMetadata(header);
    done(null, { text: `hello ${name}` }, trailer);
  }
}

function greetAll(call, done) {
  let number = 0;
  whenCancelled(call);
  call.on('data', () => number++);
  call.on('end', () => done(null, { text: 'hello all', number }));
}

function greetOften(call) {
  const { name, count } = call.request;
  let number = 0;
  let over = false;
  whenCancelled(call, () => { over = true; });
  // As much as the client takes, then the rest of the program, then more.
  (function more() {
    for (let room = true; room && !over && number < count; number++) room = call.write({ text: `hello ${name}`, number });
    if (over) return;
    if (number < count) call.once('drain', () => setImmediate(more));
    else call.end();
  })();
}

function greetEach(call) {
  const { header, trailer } = echo(call);
  let number = 0;
  let asleep = false;
  whenCancelled(call);
  call.sendMetadata(header);
  call.on('data', ({ name }) => {
    asleep ||= name === 'sleep';
    if (!call.write({ text: `hello ${name}`, number: number++ })) {
      call.pause();
      call.once('drain', () => call.resume());
    }
  });
  call.on('end', () => asleep || call.end(trailer));
}

const server = new grpc.Server();
server.addService(Greeter.service, { greet, greetAll, greetOften, greetEach });
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (err, port) => {
  if (err) throw err;
  console.log(port);
});
