// RxDB clients that are told what to do, a line of JSON each on stdin, and answer each with a line on stdout.
import { createInterface } from "node:readline";
import { createRxDatabase } from "rxdb";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { replicate } from "./replicate.mjs";

const [address, token] = process.argv.slice(2);
const text = { type: "string", maxLength: 100 };
const schema = {
  version: 0,
  type: "object",
  primaryKey: "id",
  properties: { id: text, title: text, board: text, note: text, done: { type: "boolean" }, hours: { type: "number" } },
  required: ["id", "title", "board"],
};
const clients = {};
const direct = globalThis.fetch;
const until = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let overtaking = false;
globalThis.fetch = async (url, init) => {
  const slow = (part) => overtaking && String(url).includes(part);
  if (slow("/pull")) await until(100);
  const answer = await direct(url, init);
  if (slow("/push")) await until(300);
  return answer;
};

async function client(name) {
  if (!clients[name]) {
    const storage = getRxStorageMemory();
    const database = await createRxDatabase({ name, storage, multiInstance: false, eventReduce: false });
    const { tasks } = await database.addCollections({ tasks: { schema } });
    clients[name] = { tasks, errors: [] };
  }
  return clients[name];
}

const acts = {
  async online(one) {
    one.replication = replicate(one.tasks, address, "main", token);
    one.replication.retryTime = 200;
    one.replication.error$.subscribe((error) => one.errors.push(JSON.stringify(error.parameters)));
  },
  async offline(one) {
    await one.replication.cancel();
  },
  async insert(one, document) {
    await one.tasks.insert(document);
  },
  async patch(one, { id, ...values }) {
    await (await one.tasks.findOne(id).exec()).patch(values);
  },
  async remove(one, { id }) {
    await (await one.tasks.findOne(id).exec()).remove();
  },
  async overtake() { // a pull that begins while a push runs sees what was pushed, and is answered first
    overtaking = true;
  },
  async errors(one) {
    return one.errors;
  },
  async rows(one) {
    await one.replication?.awaitInSync();
    const found = await one.tasks.find().exec();
    return Object.fromEntries(found.map((each) => [each.id, each.toJSON()]));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { name, act, argument } = JSON.parse(line);
  const told = await acts[act](await client(name), argument).then(
    (value) => ({ value: value ?? null }),
    (error) => ({ error: String(error.stack) }),
  );
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
process.exit(0);
