// What server.js and client.js have in common.
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import { fileURLToPath } from 'node:url';

const proto = fileURLToPath(new URL('../greeter/greeterpb/greeter.proto', import.meta.url));
const definition = loader.loadSync(process.env.GREETER_PROTO ?? proto, { keepCase: true, longs: Number, defaults: true });

export const { Greeter } = grpc.loadPackageDefinition(definition).sluice.interop.v1;
export const reason = '100% no: \u00e9';
export { grpc };
