// A program made with @grpc/grpc-js: it says as one line of JSON what a hub has answered.
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { decode } from "@msgpack/msgpack";

const [address, proto, token] = process.argv.slice(2);
const { Sync } = grpc.loadPackageDefinition(loadSync(proto, { keepCase: true, longs: Number })).atoma.sync.v1;
const client = new Sync(address, grpc.credentials.createInsecure());

function metadata(who) {
  const made = new grpc.Metadata();
  made.set("authorization", `Bearer ${who}`);
  return made;
}

function call(method, request, who = token) {
  const deadline = Date.now() + 20_000;
  return new Promise((resolve) =>
    client[method](request, metadata(who), { deadline }, (error, reply) =>
      resolve(error ? { code: error.code, error: decode(error.metadata.get("atoma-error-bin")[0]) } : reply),
    ),
  );
}

const hello = await call("Hello", {});
const asked = { scope: "main", client_id: Buffer.from("a-client-of-js") };
const snapshot = await call("Snapshot", asked);
const hints = client.Notify({ scopes: ["main"] }, metadata(token));
const hint = await new Promise((resolve, reject) => hints.once("data", resolve).once("error", reject));
hints.on("error", () => {}).cancel();
const told = {
  principal: hello.principal,
  stores: snapshot.stores.map((each) => [each.store, each.columns, decode(each.rows)]),
  hint,
  refused: await call("Pull", { ...asked, scope: "" }),
  stranger: await call("Pull", asked, "guessed"),
};
process.stdout.write(JSON.stringify(told));
client.close();
